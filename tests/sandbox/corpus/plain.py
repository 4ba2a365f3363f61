"""Reference results of plain Python: runs programs from a file in one process, unconfined.

``python plain.py IN OUT`` reads ``{"name", "code", "picture"}`` records and writes the results:
standard output with the last expression, the error, a digest of each image. It shares no code with
the worker. Only for trusted programs.
"""

import ast
import builtins
import contextlib
import hashlib
import io
import json
import os
import random
import sys
import tempfile
import traceback
import types

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from PIL import Image


class Screen:
    """Output of a program."""

    def __init__(self):
        self.digests = []

    def picture(self, picture):
        """Record an image's digest."""
        rgb = picture.convert("RGB")
        head = f"{rgb.width} {rgb.height} ".encode()
        self.digests.append(hashlib.sha256(head + rgb.tobytes()).hexdigest())

    def figure(self, figure):
        """Render a figure as it would be saved, and close it."""
        figure.canvas.draw()
        self.picture(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())))
        plt.close(figure)

    def all_figures(self, *_, **__):
        """Render all open figures."""
        for number in plt.get_fignums():
            self.figure(plt.figure(number))

    def show(self, value):
        """Show a value; return whether it was an image or a figure."""
        if isinstance(value, Image.Image):
            self.picture(value)
        elif isinstance(value, Figure):
            self.figure(value)
        elif isinstance(value, list) and value and all(isinstance(v, Image.Image) for v in value):
            for item in value:
                self.picture(item)
        elif isinstance(value, np.ndarray) and value.ndim in (2, 3) and value.dtype == np.uint8:
            self.picture(Image.fromarray(value))
        elif isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype == np.bool_:
            self.picture(Image.fromarray(value.astype(np.uint8) * 255))
        else:
            return False
        return True

    def display(self, *values):
        """Show several values."""
        for value in values:
            if not self.show(value):
                sys.stdout.write(f"{value}\n")


def run(code, picture):
    """Run one program in a fresh namespace; return its output."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the worker seeds the generators of models
    screen = Screen()
    Image.Image.show = lambda shown, *_, **__: screen.picture(shown)
    plt.show = screen.all_figures
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    builtins.exit = sys.exit
    names = module.__dict__
    names.update(display=screen.display, input_image=picture, input_images=[picture])
    said = io.StringIO()
    sys.stdin = io.StringIO()
    error = None
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        try:
            execute(code, names, screen)
        except SystemExit:
            pass
        except BaseException as raised:  # noqa: BLE001 - programs raise anything
            error = one_line(raised)
    plt.close("all")
    return {"stdout": said.getvalue(), "error": error, "images": screen.digests}


def execute(code, names, screen):
    """Run the statements, then show the last one if it is an expression."""
    tree = ast.parse(code, "<program>")
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = ast.Expression(tree.body.pop().value)
    exec(compile(tree, "<program>", "exec"), names)
    if last is not None:
        value = eval(compile(last, "<program>", "eval"), names)
        is_artist = isinstance(value, Artist) or (
            isinstance(value, (list, tuple)) and value and all(isinstance(v, Artist) for v in value)
        )
        if value is not None and not screen.show(value) and not is_artist:
            sys.stdout.write(f"{value!r}\n")
    screen.all_figures()


def one_line(error):
    """Return an error as a model reads it: kind, message, line of its own program."""
    lines = [
        f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == "<program>"
    ]
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    if isinstance(error, SyntaxError) and error.filename == "<program>":
        lines = [error.lineno]
    sentence = " ".join(f"{type(error).__name__}: {message}".split()).removesuffix(":")
    return f"{sentence}, line {lines[-1]}" if lines else sentence


def main(source, target):
    """Run every record of a file."""
    matplotlib.use("Agg")
    plt.close(plt.figure())  # pyplot selects its backend and `show` at the first figure
    with open(source) as file:
        records = json.load(file)
    results = {}
    for record in records:
        with tempfile.TemporaryDirectory() as folder, Image.open(record["picture"]) as opened:
            os.chdir(folder)
            results[record["name"]] = run(record["code"], opened.convert("RGB"))
            os.chdir("/")
    with open(target, "w") as file:
        json.dump(results, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
