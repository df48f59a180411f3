"""The examples that readers of archives yield and the writer of records takes."""

from typing import Any

# Split; key; image as uint8 (height, width, channels), JPEG bytes or feature tensor; label
Example = tuple[str, str, Any, int]
