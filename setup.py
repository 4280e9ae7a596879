"""Builds the compiled modules and maps the top-level kernels/ and export/ into the package.

Everything declarative is in pyproject.toml; what is here needs code.
"""

import sys

import numpy
from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

CXX_FLAGS = ["/std:c++17", "/O2"] if sys.platform == "win32" else ["-std=c++17", "-O3"]

candidates = Extension(
    "pnas_fast._candidates",
    sources=["csrc/candidates.pyx"],
    depends=["csrc/candidates.hpp", "csrc/canonical.hpp", "csrc/parallel.hpp"],
    include_dirs=["csrc", numpy.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
    extra_compile_args=CXX_FLAGS,
    extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
    language="c++",
)

# kernels/ and export/ are reached through links inside pnas_fast/ in a checkout; in a wheel they are
# copied to the same place, and no top-level package called "kernels" is ever installed.
SHARED = {"pnas_fast.kernels": "kernels", "pnas_fast.export": "export"}
SHARED |= {"pnas_fast.kernels.fused": "kernels/fused"}
SHARED |= {"pnas_fast.kernels.triton": "kernels/triton"}
packages = [
    name for name in find_packages(include=["pnas_fast", "pnas_fast.*"]) if not name.startswith(tuple(SHARED))
]

setup(
    packages=packages + list(SHARED),
    package_dir=SHARED,
    ext_modules=cythonize([candidates], build_dir="build/cython", language_level=3),
)
