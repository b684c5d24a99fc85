"""The engine's side in C++17: `kiln.hpp` loads bundles and picks entries, `example.cpp` runs two of them.

Data for C++ compilers; Python reads nothing here. `kernels.bundle` makes what `kiln.hpp` loads.
"""
