"""zstd before encryption, and its bounded opposite.

`zstandard` ignores `max_output_size` where the frame states its size, takes forged sizes at their word and accepts
trailing bytes (F11); so sizes are checked first and what comes out is counted while it comes.
"""

from __future__ import annotations

import io
from typing import Final

import zstandard
from meshfold.core.errors import FrameRejected

__all__ = ("SECTION_BYTES_MAX", "pack", "unpack")

SECTION_BYTES_MAX: Final = 4 * 1024 * 1024
_WINDOW_MAX: Final = 8 * 1024 * 1024
_LEVEL: Final = 1


def pack(data: bytes) -> bytes:
    """Compress; the result may be larger, then the caller keeps the original."""
    return zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(data)


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
        reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX).stream_reader(
            io.BytesIO(data), read_across_frames=False
        )
        out = reader.read(params.content_size + 1)
        if len(out) != params.content_size:
            raise FrameRejected("inflate", "not the stated size")
        again = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX).decompressobj()
        again.decompress(data)
        if again.unused_data or not again.eof:
            raise FrameRejected("inflate", "bytes after the frame")
    except (zstandard.ZstdError, MemoryError, OverflowError) as error:
        raise FrameRejected("inflate", str(error)) from None
    return out
