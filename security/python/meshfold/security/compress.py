"""zstd before encryption, and its bounded opposite.

`zstandard` allocates what the frame states and ignores `max_output_size` where it does (F11): so the stated size is
checked first, and more than it cannot come out.
"""

from __future__ import annotations

import threading
from typing import Final

import zstandard
from meshfold.core.errors import FrameRejected

__all__ = ("SECTION_BYTES_MAX", "pack", "unpack")

SECTION_BYTES_MAX: Final = 4 * 1024 * 1024
_WINDOW_MAX: Final = 8 * 1024 * 1024
_LEVEL: Final = 1


class _Contexts(threading.local):
    """One compressor and one decompressor for each thread: making them anew costs a tenth of their work."""

    def __init__(self) -> None:
        self.packer = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)
        self.unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX)


_CONTEXTS: Final = _Contexts()


def pack(data: bytes) -> bytes:
    """Compress; the result may be larger, then the caller keeps the original."""
    return _CONTEXTS.packer.compress(data)


def unpack(data: bytes) -> bytes:
    """Decompress one frame of a stated size.

    :raises FrameRejected: with reason `inflate` for anything else, before more than the limit is allocated
    """
    try:
        params = zstandard.get_frame_parameters(data)
        if (
            params.dict_id
            or not 0 <= params.content_size <= SECTION_BYTES_MAX
            or params.window_size > _WINDOW_MAX
        ):
            raise FrameRejected("inflate", "size, window or dictionary")
        out = _CONTEXTS.unpacker.decompress(data, allow_extra_data=False)
        if len(out) != params.content_size:
            raise FrameRejected("inflate", "not the stated size")
    except (zstandard.ZstdError, MemoryError, OverflowError) as error:
        raise FrameRejected("inflate", str(error)) from None
    return out
