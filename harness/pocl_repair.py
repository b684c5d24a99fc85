"""Tells PoCL's bundled LLVM which CPU it runs on, where that LLVM is too old to know.

PoCL 3.0 from PyPI carries LLVM 14. On a CPU newer than it (seen on AMD Zen 5) LLVM calls the host "generic", clang 14
refuses that name for x86-64, and every build ends with "unknown target CPU 'generic'" (issue 1049 of pocl/pocl). No
environment variable of 3.0 sets the name. Its library exports the one function that decides, so before the first
OpenCL call that function is replaced in memory by one which returns the name of the newest CPU of LLVM 14 whose
features this machine has.

Name and features must agree: PoCL picks its built-in library by CPU feature, and with a name that lacks AVX-512 on a
machine that has it, float16 kernels abort in LLVM ("Do not know how to scalarize"; seen with znver3, which is what
LLVM 14 takes a Zen 4 for). So such a name is replaced too. So are AMD's names on a machine with AVX2 alone: the
built-in library there is compiled for "haswell", LLVM will not inline it into functions for "znver3", and a call of
vload8 in an inner loop spills every vector register (GEMV of 16384 × 2048, int4/g128, one vector of 8 by 4 blocks, two
Zen 3 cores: 2.0 ms, inlined 1.5 ms).

To re-check: `python -m harness doctor` shows the repair; it is not made where PoCL's own name fits the CPU.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys
from pathlib import Path
from typing import Any

_AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"}
_AVX2 = {"avx2", "fma", "f16c", "bmi1", "bmi2"}
_KNOWN_WITH_AVX512 = {  # LLVM 14's names of CPUs that have it
    "skylake-avx512",
    "cascadelake",
    "cooperlake",
    "cannonlake",
    "icelake-client",
    "icelake-server",
    "rocketlake",
    "tigerlake",
    "sapphirerapids",
}
_ENTRY = "pocl_get_llvm_cpu_name"  # char *(void), the caller frees the result
_kept: list[ctypes.Array[ctypes.c_char]] = []  # the name's bytes must live as long as the code that points at them


def repair(library: ctypes.CDLL) -> str:
    """Mend a loaded libpocl if it needs it. Returns what was done or why nothing could be, "" where all is well."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return ""
    entry = getattr(library, _ENTRY, None)
    if entry is None:
        return ""  # another version of PoCL, which knows its CPU or has its own setting
    entry.restype = ctypes.c_char_p
    own = entry().decode()
    name = cpu_name(Path("/proc/cpuinfo"))
    if fits(own, name):
        return ""
    if name is None:
        return "PoCL does not know this CPU, and neither AVX-512 nor AVX2 is here to name it by: its builds will fail"
    if not _overwrite(entry, name):
        if own != "generic" and name == "haswell":
            return f"PoCL takes this CPU for {own} and its code could not be made writable: its kernels will be slow"
        return "PoCL does not know this CPU and its code could not be made writable: its builds will fail"
    return f"PoCL took this CPU for {own} and was told {name} (pocl issue 1049)"


def fits(own: str, name: str | None) -> bool:
    """Whether LLVM's own name for the CPU does; `name` is what this module would call it."""
    if own == "generic":
        return False
    return own in _KNOWN_WITH_AVX512 if name == "skylake-avx512" else name != "haswell" or not own.startswith("znver")


def cpu_name(cpuinfo: Path) -> str | None:
    """LLVM 14's name for the newest CPU whose features `cpuinfo` lists: AVX-512, else AVX2, else None."""
    flags: set[str] = set()
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("flags"):
            flags = set(line.partition(":")[2].split())
            break
    if flags >= _AVX512 | _AVX2:
        return "skylake-avx512"
    return "haswell" if flags >= _AVX2 else None


def _overwrite(entry: Any, name: str) -> bool:
    """Put `return strdup(name)` at the function's address. False where memory protection forbids it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    address = ctypes.cast(entry, ctypes.c_void_p).value
    strdup = ctypes.cast(libc.strdup, ctypes.c_void_p).value
    if address is None or strdup is None:
        return False
    text = ctypes.create_string_buffer(name.encode())
    # mov rdi, text; mov rax, strdup; jmp rax
    code = b"\x48\xbf" + ctypes.addressof(text).to_bytes(8, "little") + b"\x48\xb8" + strdup.to_bytes(8, "little")
    code += b"\xff\xe0"
    page = address & -mmap.PAGESIZE
    length = address + len(code) - page
    if libc.mprotect(page, length, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC):
        return False
    ctypes.memmove(address, code, len(code))
    _kept.append(text)
    libc.mprotect(page, length, mmap.PROT_READ | mmap.PROT_EXEC)
    return True
