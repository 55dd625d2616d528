"""A GGUF with the weights that steer.c's file has, in another type: for tools that run llama.cpp beside it.

    python tools/gguf_as.py MODEL.gguf F32|F16|Q8_0 OUT.gguf
"""
import sys
from pathlib import Path

import gguf
import numpy as np

from binfile import from_bf16, to_bf16


def convert(path, kind, to):
    """The GGUF of that path with its matrices rounded to bf16, as tools/export.py does, then of type `kind`."""
    reader = gguf.GGUFReader(path)
    part = Path(f"{to}.part")
    writer = gguf.GGUFWriter(part, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        of = field.types[1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], of)
    wanted = gguf.GGMLQuantizationType[kind]
    for t in reader.tensors:
        a = np.asarray(gguf.quants.dequantize(t.data, t.tensor_type), np.float32)
        if a.ndim > 1:
            a = from_bf16(to_bf16(a)).reshape(a.shape)
            writer.add_tensor(t.name, gguf.quants.quantize(a, wanted), raw_dtype=wanted)
        else:
            writer.add_tensor(t.name, a)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.rename(to)


if __name__ == "__main__":
    convert(*sys.argv[1:])
