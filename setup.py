"""Builds the compiled modules and maps the top-level kernels/ and export/ into the package.

Everything declarative is in pyproject.toml; what is here needs code.
"""

import os
import sys
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

WINDOWS = sys.platform == "win32"
OPTIMIZE = [] if "-O" in os.environ.get("CXXFLAGS", "") else ["-O3"]
CXX_FLAGS = ["/std:c++17", "/O2"] if WINDOWS else ["-std=c++17", *OPTIMIZE]
LINK_FLAGS = [] if WINDOWS else ["-pthread"]

candidates = Extension(
    "pnas_fast._candidates",
    sources=["csrc/candidates.pyx"],
    depends=["csrc/candidates.hpp", "csrc/canonical.hpp", "csrc/parallel.hpp"],
    include_dirs=["csrc", numpy.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
    extra_compile_args=CXX_FLAGS,
    extra_link_args=LINK_FLAGS,
    language="c++",
)

# Written with vector extensions that GCC and Clang share, so not built by MSVC; its instruction sets are
# chosen at run time, so no -march here.
cpu_kernels = Extension(
    "pnas_fast._cpu_kernels",
    sources=["csrc/cpu_kernels.pyx", *sorted(map(str, Path("csrc/cpu").glob("*.cpp")))],
    depends=sorted(map(str, Path("csrc/cpu").glob("*.hpp"))),
    include_dirs=["csrc"],
    extra_compile_args=[*CXX_FLAGS, "-ffp-contract=fast", "-fvisibility=hidden"],
    extra_link_args=LINK_FLAGS,
    language="c++",
)

# kernels/ and export/ are reached through links inside pnas_fast/ in a checkout; in a wheel they are
# copied to the same place, and no top-level package called "kernels" is ever installed.
SHARED = {
    f"pnas_fast.{path.replace('/', '.')}": path
    for path in ("kernels", "kernels/fused", "kernels/triton", "export")
}
packages = [
    name for name in find_packages(include=["pnas_fast", "pnas_fast.*"]) if not name.startswith(tuple(SHARED))
]

setup(
    packages=packages + list(SHARED),
    package_dir=SHARED,
    ext_modules=cythonize(
        [candidates] if WINDOWS else [candidates, cpu_kernels], build_dir="build/cython", language_level=3
    ),
)
