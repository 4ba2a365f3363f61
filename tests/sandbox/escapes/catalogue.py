"""Every attempt, in the order of its number."""

from .attempt import Attempt
from .files import FILES
from .kernel import KERNEL, NETWORK
from .kernels_files import KERNELS_FILES
from .kernels_neighbours import KERNELS_NEIGHBOURS
from .learned import LEARNED
from .planned import PLANNED
from .processes import PROCESSES, SECRETS
from .protocol import PROTOCOL, STATE
from .resident import RESIDENT
from .resources import RESOURCES, TIME
from .stumbled import STUMBLED
from .time_shares import TIME_SHARES
from .unforeseen import UNFORESEEN

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
    *TIME_SHARES,
    *RESIDENT,
    *KERNELS_FILES,
    *KERNELS_NEIGHBOURS,
    *LEARNED,
    *UNFORESEEN,
)
