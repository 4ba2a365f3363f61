"""Programs by library, each a template and the values that vary in it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from string import Template

_NUMPY = {
    "import numpy as np\na = np.asarray(input_image)\n"
    "print(a.shape, a.dtype, a[$y, $x].tolist())": {
        "y": (0, 5),
        "x": (0, 7),
    },
    "import numpy as np\na = np.asarray(input_image).astype(int)\n"
    "print(a.$call(axis=(0, 1)).round(3))": {
        "call": ("mean", "std", "max", "min", "sum"),
    },
    "import numpy as np\ng = np.asarray(input_image.convert('L'))\nmask = g $op $level\n"
    "ys, xs = np.nonzero(mask)\n"
    "print(mask.sum(), (xs.min(), ys.min()) if len(xs) else None)\nmask": {
        "op": ("<", ">"),
        "level": (60, 128, 200),
    },
    "import numpy as np\nrng = np.random.default_rng($seed)\nx = rng.normal(size=$size)\n"
    "print(np.round(x.mean(), 9), np.histogram(x, bins=4)[0])\nnp.sort(x)[:3].round(6)": {
        "seed": (0, 7),
        "size": (10, 100),
    },
    "import numpy as np\nm = np.array([[$a, 1.0], [1.0, $b]])\nprint(np.linalg.det(m).round(6))\n"
    "np.linalg.$call(m)": {"a": (2, 5), "b": (3, 4), "call": ("inv", "norm")},
    "import numpy as np\nnp.random.seed($seed)\n"
    "print(np.random.randint(0, 100, 5), np.random.rand(2))": {
        "seed": (1, 2),
    },
    "import numpy as np\na = np.arange($n).reshape($shape)\nprint(a.T.tolist())\n"
    "a[:, 0] @ a[:, -1]": {
        "n": (6,),
        "shape": ("(2, 3)", "(3, 2)", "(4, 2)"),
    },
}
_PILLOW = {
    "crop = input_image.crop(($x, $y, $x + 20, $y + 16))\nprint(crop.size)\ncrop": {
        "x": (0, 10, 40),
        "y": (0, 12),
    },
    "from PIL import Image\ninput_image.resize(($w, $h), Image.Resampling.$kind)": {
        "w": (64, 17),
        "h": (48,),
        "kind": ("NEAREST", "BILINEAR", "LANCZOS", "BOX"),
    },
    "input_image.rotate($angle, expand=$expand)": {"angle": (90, 30), "expand": (True, False)},
    "from PIL import ImageOps\nout = ImageOps.$call(input_image)\ndisplay(out)\nprint(out.size)": {
        "call": ("mirror", "flip", "invert", "autocontrast", "equalize", "grayscale"),
    },
    "from PIL import ImageFilter\ninput_image.filter(ImageFilter.$kind)": {
        "kind": ("BLUR", "SHARPEN", "FIND_EDGES", "GaussianBlur(2)", "MedianFilter(3)"),
    },
    "from PIL import ImageEnhance\nImageEnhance.$kind(input_image).enhance($by)": {
        "kind": ("Contrast", "Color", "Brightness"),
        "by": (0.5, 2),
    },
    "from PIL import ImageDraw\npicture = input_image.copy()\ndraw = ImageDraw.Draw(picture)\n"
    "draw.$shape((4, 4, 30, 20), outline='$colour', width=$width)\npicture.show()": {
        "shape": ("rectangle", "ellipse"),
        "colour": ("red", "#00ff00"),
        "width": (1, 3),
    },
    "counts = input_image.convert('$mode').getcolors(1 << 20)\nprint(len(counts), max(counts))": {
        "mode": ("RGB", "L", "P"),
    },
    "print(input_image.convert('$mode').getpixel((3, 3)), "
    "input_image.getbbox(), input_image.mode)": {
        "mode": ("L", "HSV", "CMYK", "RGBA", "1"),
    },
    "import io\nfrom PIL import Image\nbuffer = io.BytesIO()\n"
    "input_image.save(buffer, '$format')\nback = Image.open(buffer).convert('RGB')\n"
    "print(back.size)\nback": {"format": ("PNG", "BMP", "TIFF", "GIF")},
    "input_image.save('$name')\nfrom PIL import Image\nimport os\n"
    "print(os.listdir('.'), Image.open('$name').size)": {"name": ("crop.png", "out.bmp")},
    "[input_image.crop((i * 10, 0, i * 10 + 10, 10)) for i in range($count)]": {"count": (1, 3)},
}
_OPENCV = {
    "import cv2, numpy as np\ngray = cv2.cvtColor(np.array(input_image), cv2.COLOR_RGB2GRAY)\n"
    "_, mask = cv2.threshold(gray, $level, 255, cv2.$kind)\n"
    "found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)\n"
    "print(len(found), sorted(cv2.boundingRect(c) for c in found)[:3])": {
        "level": (90, 128, 180),
        "kind": ("THRESH_BINARY", "THRESH_BINARY_INV"),
    },
    "import cv2, numpy as np\na = np.array(input_image)\n"
    "cv2.resize(a, ($w, 40), interpolation=cv2.INTER_$kind)": {
        "w": (30, 90),
        "kind": ("NEAREST", "LINEAR", "AREA", "CUBIC"),
    },
    "import cv2, numpy as np\na = np.array(input_image)\ncv2.Canny(a, $low, $high)": {
        "low": (50, 100),
        "high": (150, 200),
    },
    "import cv2, numpy as np\nhsv = cv2.cvtColor(np.array(input_image), cv2.COLOR_RGB2HSV)\n"
    "mask = cv2.inRange(hsv, ($h, 60, 60), ($h + 40, 255, 255))\n"
    "n, labels, stats, _ = cv2.connectedComponentsWithStats(mask)\n"
    "print(n - 1, stats[1:, cv2.CC_STAT_AREA].tolist()[:5])\nmask": {"h": (0, 40, 90)},
    "import cv2, numpy as np\na = cv2.$call(np.array(input_image), (5, 5)$more)\n"
    "print(a.mean().round(4))": {
        "call": ("GaussianBlur",),
        "more": (", 0", ", 1.5"),
    },
    "import cv2\ncv2.cvtColor($value, cv2.COLOR_RGB2GRAY)": {"value": ("None", "[1]")},
    "import cv2, numpy as np\na = np.zeros((40, 60, 3), np.uint8)\n"
    "cv2.putText(a, '$text', (4, 28), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1)\na": {
        "text": ("42", "cat"),
    },
}
_SCIENCE = {
    "from scipy import ndimage\nimport numpy as np\ng = np.asarray(input_image.convert('L'))\n"
    "labels, n = ndimage.label(g $op $level)\nprint(n, np.bincount(labels.ravel())[1:4])": {
        "op": ("<", ">"),
        "level": (80, 150),
    },
    "from scipy import ndimage\nimport numpy as np\na = np.asarray(input_image.convert('L'))\n"
    "ndimage.$call(a, $size)": {
        "call": ("uniform_filter", "median_filter", "grey_dilation"),
        "size": (3, 5),
    },
    "from scipy.spatial import distance\nprint(round(distance.$call([0, 1, 2], [$a, 3, 4]), 6))": {
        "call": ("euclidean", "cityblock", "cosine"),
        "a": (1, 5),
    },
    "from scipy import stats\n"
    "print(stats.linregress([1, 2, 3, 4], [2, $a, 6, 9]).slope.round(6))": {
        "a": (3, 4),
    },
    "from skimage import measure\nimport numpy as np\ng = np.asarray(input_image.convert('L'))\n"
    "regions = measure.regionprops(measure.label(g < $level))\n"
    "print(len(regions), sorted(int(r.area) for r in regions)[-3:])": {"level": (60, 120)},
    "from skimage import filters\nimport numpy as np\ng = np.asarray(input_image.convert('L'))\n"
    "t = filters.threshold_$kind(g)\nprint(round(float(t), 4))\ng > t": {
        "kind": ("otsu", "mean", "yen"),
    },
    "from skimage import color\nimport numpy as np\n"
    "print(color.rgb2lab(np.asarray(input_image))[$y, 3].round(3))": {"y": (0, 9)},
    "import pandas as pd\nframe = pd.DataFrame({'name': list('abca'), 'value': [$a, 2, 3, 4]})\n"
    "print(frame.groupby('name').value.$call())\nframe.head(2)": {
        "a": (1, 10),
        "call": ("sum", "mean", "max"),
    },
    "import pandas as pd\nframe = pd.DataFrame({'x': range(5)})\n"
    "frame.query('x > $a').describe().loc['$row']": {"a": (1, 2), "row": ("mean", "count")},
    "from sympy import symbols, solve, $call\nx = symbols('x')\n"
    "print(solve(x**2 - $a * x + 2, x))\n$call(x**3 + $a * x, x)": {
        "call": ("diff", "integrate"),
        "a": (3, 5),
    },
    "from sympy import Rational, sqrt, factor, symbols\nx = symbols('x')\n"
    "Rational($a, 6) + sqrt(8), factor(x**2 - $a * $a)": {"a": (2, 3, 4)},
    "import networkx as nx\nedges = [(1, 2, 4), (2, 3, $w), (1, 3, 9), (3, 4, 1)]\n"
    "g = nx.Graph()\ng.add_weighted_edges_from(edges)\n"
    "print(nx.shortest_path(g, 1, 4, weight='weight'), nx.$call(g))": {
        "w": (1, 8),
        "call": ("density", "number_of_nodes", "is_connected"),
    },
    "from shapely.geometry import box, Point\na, b = box(0, 0, 4, 3), box($x, 1, 6, 5)\n"
    "print(a.intersection(b).area, a.$call(b), Point(1, 1).distance(b))\na.union(b).bounds": {
        "x": (2, 5),
        "call": ("intersects", "contains", "distance"),
    },
}
_PLOTS = {
    "import matplotlib.pyplot as plt\nplt.$call([1, 2, 3], [$a, 1, 4])\n"
    "plt.title('$title')\nplt.show()": {
        "call": ("plot", "bar", "scatter"),
        "a": (2, 7),
        "title": ("values", "é 42"),
    },
    "import matplotlib.pyplot as plt\nimport numpy as np\n"
    "fig, axes = plt.subplots(1, $n, figsize=(3, 2))\n"
    "axes[0].imshow(np.asarray(input_image))\naxes[1].hist([1, 1, 2, $a])\nfig": {
        "n": (2, 3),
        "a": (5, 6),
    },
    "import matplotlib.pyplot as plt\nplt.figure(figsize=(2, 2), dpi=$dpi)\n"
    "plt.imshow(input_image)\n"
    "plt.axis('off')\nprint(plt.get_fignums())": {"dpi": (50, 80)},
}
_PLAIN = {
    "words = '$text'.split()\nprint({w: words.count(w) for w in sorted(set(words))})\nlen(words)": {
        "text": ("a b a c", "one two two", ""),
    },
    "def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\nprint(f($n))\n"
    "[f(i) for i in range($n)]": {
        "n": (5, 12),
    },
    "import random\nprint(random.$call)\nrandom.sample(range(100), 3)": {
        "call": ("random()", "randint(1, 6)", "choice('abcdef')"),
    },
    "from dataclasses import dataclass\n@dataclass\nclass Box:\n    x: int\n    y: int = $a\n"
    "boxes = [Box(3), Box(1)]\nprint(sorted(boxes, key=lambda b: b.x))\nboxes": {"a": (1, 2)},
    "import $name\nprint($expression)": {
        "name": ("math, re, json, itertools, collections, datetime, statistics, string",),
        "expression": (
            "round(math.hypot(3, 4), 3)",
            "re.findall(r'\\d+', 'a1b22')",
            "json.dumps({'b': [1, None], 'a': True}, sort_keys=True)",
            "list(itertools.combinations('abc', 2))",
            "collections.Counter('hello').most_common(2)",
            "datetime.date(2024, 2, 28) + datetime.timedelta(2)",
            "statistics.median([3, 1, 2]), string.ascii_letters[:5]",
            "datetime.datetime.fromtimestamp(0)",
        ),
    },
    "x = $value\nx": {
        "value": (
            "None",
            "''",
            "[]",
            "{'a': {1, 2}}",
            "3.0",
            "1e300 * 10",
            "b'x'",
            "(1,)",
            "'a\\nb'",
        ),
    },
    "print(hash('$word'), list({'$word', 'two', 'three'}))": {"word": ("one", "four")},
    "for i in range($n):\n    if i == 3: break\n    print(i, end=' ')\nelse:\n    print('done')": {
        "n": (2, 5),
    },
    "import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.stdout.write('$word\\n')": {
        "word": ("a", "é"),
    },
    "with open('notes.txt', 'w') as file:\n    file.write('$word')\nopen('notes.txt').read() * 2": {
        "word": ("x", "日本"),
    },
    "from concurrent.futures import ThreadPoolExecutor\n"
    "with ThreadPoolExecutor(2) as pool: print(list(pool.map(lambda x: x * $a, range(4))))": {
        "a": (2, 3),
    },
    "try:\n    $call\nexcept Exception as error:\n    print(type(error).__name__, error)": {
        "call": ("1 / 0", "{}['a']", "int('x')", "[].pop()", "open('nowhere')"),
    },
    "$statement": {
        "statement": (
            "x = 1\n\n1 / 0",
            "print(undefined)",
            "def f():\n    return {}['k']\nprint('before')\nf()",
            "import json\njson.loads('{')",
            "x = (1,\n",
            "for i in range(3)\n    print(i)",
            "import nowhere.at_all",
            "'a' + 1",
            "[1, 2][5]",
            "raise ValueError('two\\nlines')",
            "assert 1 == 2, 'not equal'",
            "class E(Exception): pass\nraise E",
            "input_image.crop((9, 9, 1, 1))",
            "input_image.getpixel((10**6, 0))",
            "import numpy as np\nnp.zeros(3) @ np.zeros(4)",
            "import numpy as np\nnp.zeros((2, 2)).reshape(3)",
            "def g(n): return g(n + 1)\ng(0)",
            "input('?')",
            "exit()",
            "int('9' * 5000)",
        ),
    },
}
GROUPS = {
    "numpy": _NUMPY,
    "pillow": _PILLOW,
    "opencv": _OPENCV,
    "science": _SCIENCE,
    "plots": _PLOTS,
    "plain": _PLAIN,
}


def programs() -> Iterator[tuple[str, str]]:
    """Yield every variation of every template, each with a name."""
    for group, templates in GROUPS.items():
        for number, (template, values) in enumerate(templates.items()):
            for position, chosen in enumerate(itertools.product(*values.values())):
                named = dict(zip(values, chosen, strict=True))
                yield f"{group} {number}.{position}", Template(template).substitute(named)
