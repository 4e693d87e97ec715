"""Builds a stand-in for CUDA, which computes nothing: `build.py FOLDER HEADERS`.

ONNX Runtime's CUDA provider opens sessions on it, places nodes, copies tensors, launches kernels
and records graphs, all in host memory; kernels do nothing, so results are meaningless. It needs a
C compiler, onnxruntime-gpu, and the headers of nvidia-cuda-runtime and nvidia-cuda-crt, which are
not to be installed beside it: their library would be taken for the stand-in's. Each library gets
the symbols that the provider asks for: those of runtime.c; others return 0.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
CREATES = re.compile(r"(Create|CreateDescriptor|Create_v2)$|^cudnnCreate")
#: By what their functions return where it is not 0.
RETURNED = {"cudnnGetVersion": "91000", "cudnnGetCudartVersion": "13000"}
ATTRIBUTE = """
int cudnnBackendGetAttribute(void *d, int name, int type, long n, long *count, void *values) {
  if (count) *count = 1;
  if (values && type != 15) memset(values, 0, type == 3 || type == 5 ? 8 : 4);
  return 0;
}
int cudnnBackendCreateDescriptor(int type, void **made) { *made = calloc(1, 4096); return 0; }
"""


def provider() -> Path:
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "capi" / "libonnxruntime_providers_cuda.so"


def headers(root: Path) -> Path:
    for found in root.rglob("driver_types.h"):
        return found.parent
    raise FileNotFoundError(f"no driver_types.h in {root}")


def wanted(library: Path) -> dict[str, set[str]]:
    """The functions that each library has to have."""
    found: dict[str, set[str]] = defaultdict(set)
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True
    )
    for line in listed.stdout.splitlines():
        name, _, source = line.split()[-1].partition("@")
        if re.match(r"(cuda|cublas|__cuda)", name):
            found[source].add(name)
    # Linked, but nothing of it is called; and what is looked up when it is needed.
    found["libcurand.so.10"] = set()
    found["libcuda.so.1"] = {"cuTensorMapEncodeTiled"}
    content = library.read_bytes()
    for name, prefix in (("libcudnn.so.9", b"cudnn"), ("libcufft.so.12", b"cufft")):
        names = re.findall(rb"\0(" + prefix + rb"[A-Z][A-Za-z0-9_]+)(?=\0)", content)
        found[name] = {n.decode() for n in names}
    return found


def source_of(library: str, names: set[str]) -> str:
    own = (HERE / "runtime.c").read_text() if library.startswith("libcudart") else ""
    own += ATTRIBUTE if library.startswith("libcudnn") else ""
    parts = ["#include <stdlib.h>\n#include <string.h>\n", own]
    for name in sorted(names):
        if re.search(rf"\b{name}\(", own):
            continue
        if re.search("ErrorName|ErrorString|StatusName|StatusString", name):
            parts.append(f'const char *{name}() {{ return "the stand-in for CUDA"; }}\n')
        elif CREATES.search(name):
            parts.append(f"int {name}(void **p) {{ if (p) *p = calloc(1, 4096); return 0; }}\n")
        else:
            parts.append(f"long {name}() {{ return {RETURNED.get(name, '0')}; }}\n")
    return "".join(parts)


def main(folder: Path, include: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for library, names in wanted(provider()).items():
        source, versions = folder / f"{library}.c", folder / f"{library}.map"
        source.write_text(source_of(library, names))
        # The provider asks for these with the library's name as their version.
        versions.write_text(f"{library} {{ global: *; }};\n")
        versioned = library.startswith(("libcudart", "libcublas"))
        subprocess.run(
            [
                *("cc", "-shared", "-fPIC", "-O1", "-w", f"-I{headers(include)}"),
                *([f"-Wl,--version-script={versions}"] if versioned else []),
                *(f"-Wl,-soname,{library}", "-o", folder / library, source),
            ],
            check=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
