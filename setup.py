"""Builds the native kernels. All of them are optional: without a compiler their pure twins run."""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import Extension, setup

FLAGS = ["-O3", "-g0"]  # debug symbols would be three quarters of a wheel
# What Cython adds for memoryviews: compiled once, not into each kernel, where it is most of the code.
SHARED = "tgres_py.kernels._cyutility"


def kernels() -> list[Extension]:
    """One extension for each ``tgres_py/kernels/*.pyx``, and one that they share; none with TGRES_PURE=1 or without Cython."""
    if os.environ.get("TGRES_PURE"):
        return []
    try:
        import numpy
        from Cython.Build import cythonize
    except ImportError:
        return []
    found = [
        Extension(
            f"tgres_py.kernels.{path.stem}",
            [path.as_posix()],
            include_dirs=[numpy.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
            extra_compile_args=FLAGS,
        )
        for path in sorted(Path("tgres_py/kernels").glob("*.pyx"))
    ]
    found.append(Extension(SHARED, [f"{SHARED.replace('.', '/')}.c"], extra_compile_args=FLAGS))
    built = list(cythonize(found, language_level=3, shared_utility_qualified_name=SHARED))
    for extension in built:
        extension.optional = True  # cythonize drops it when it is given above
    return built


# setuptools compiles one after the other unless it is told.
setup(ext_modules=kernels(), options={"build_ext": {"parallel": os.cpu_count()}})
