"""The oracle's program for counting nuclei in a microscopy image: threshold, then watershed."""

from __future__ import annotations

COUNT_NUCLEI = """\
import cv2
import numpy as np

grey = cv2.cvtColor(np.array(input_image), cv2.COLOR_RGB2GRAY)
grey = cv2.GaussianBlur(grey, (3, 3), 0)
level, mask = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
if np.median(border) > level:
    mask = 255 - mask
mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
sizes = stats[1:, cv2.CC_STAT_AREA]
sizes = sizes[sizes >= 12]
typical = np.median(sizes) if len(sizes) else 0
depth = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
depth = cv2.GaussianBlur(depth, (0, 0), max(1.0, 0.12 * np.sqrt(typical)))
reach = max(3, int(0.45 * np.sqrt(typical)) | 1)
peaks = (depth == cv2.dilate(depth, np.ones((reach, reach)))) & (depth > 1.0) & (mask > 0)
found = cv2.connectedComponents(peaks.astype(np.uint8))[0] - 1
print(max(found, len(sizes)))
"""


def is_nuclei_question(question: str) -> bool:
    """Return whether a question is about the number of cell nuclei."""
    text = question.lower()
    return "nuclei" in text and "how many" in text
