"""Every attempt, in the order of its number."""

from .attempt import Attempt
from .devised import PLANNED, STUMBLED
from .files import FILES
from .kernel import KERNEL, NETWORK
from .processes import PROCESSES, SECRETS
from .protocol import PROTOCOL, STATE
from .resources import RESOURCES, TIME

ATTEMPTS: tuple[Attempt, ...] = (
    *FILES,
    *PROCESSES,
    *SECRETS,
    *NETWORK,
    *KERNEL,
    *RESOURCES,
    *TIME,
    *PROTOCOL,
    *STATE,
    *STUMBLED,
    *PLANNED,
)
