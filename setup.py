"""The parts of the build that pyproject.toml cannot say: where kernels/ goes and how csrc/ is compiled."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError, CompileError

sys.path.insert(0, str(Path(__file__).parent / "scripts"))
import native_toolchain as toolchain

REQUIRED = os.environ.get("FASTDINO_REQUIRE_NATIVE") == "1"
STATIC_JPEG_MACHINES = {("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")}


class BuildNative(build_ext):
    """Builds the extension where it can be built; elsewhere says so in one line and installs without it.

    With FASTDINO_REQUIRE_NATIVE=1 in the environment an extension that cannot be built is an error.
    """

    def build_extensions(self) -> None:
        if packages := toolchain.missing_packages():
            self._do_without(f"what it is built with is missing; to have it: apt-get install {' '.join(packages)}")
            return
        try:
            import pybind11
            from pybind11.setup_helpers import ParallelCompile

            ParallelCompile(default=0).install()  # 0: as many compilers as there are cores
            for extension in self.extensions:
                extension.include_dirs.append(pybind11.get_include())
                flags = toolchain.jpeg_flags() or toolchain.Flags([], [])
                extension.extra_compile_args += flags.compile
                extension.extra_link_args += flags.link
                extension.include_dirs.append("csrc")
                extension.extra_objects += self._compile_simd(extension)
            super().build_extensions()
        except ImportError as error:
            self._do_without(f"{error}; to have it: pip install pybind11")
        except (BaseError, CCompilerError):
            self._do_without("it does not compile; the compiler's messages stand above")

    def _compile_simd(self, extension: Extension) -> list[str]:
        """The inner loops, once for each instruction set with flags of its own."""
        if not toolchain.is_x86():
            return []
        extension.define_macros.append(("FASTDINO_X86", "1"))
        objects = []
        for source, flags in toolchain.SIMD_FLAGS.items():
            objects += self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                include_dirs=extension.include_dirs,
                macros=extension.define_macros,
                extra_postargs=[*extension.extra_compile_args, *flags],
                depends=extension.depends,
            )
        return objects

    def _do_without(self, reason: str) -> None:
        if REQUIRED:
            raise CompileError(f"fastdino._native cannot be built: {reason}")
        print(
            f"fastdino: installing without its native extension, using the Python path: {reason}",
            file=sys.stderr,
        )
        self.extensions: list[Extension] = []


def build_requirements() -> list[str]:
    """A static libjpeg-turbo, asked for only where it is all that is missing and a wheel of it exists.

    It is one company's package. Named in pyproject.toml it would be asked for everywhere, and on the day that
    it, or its wheel for some platform, is gone no installation at all would succeed; here a libjpeg on the
    system makes it unnecessary.
    """
    has_wheel = (sys.platform, platform.machine()) in STATIC_JPEG_MACHINES and sys.version_info >= (3, 12)
    if sys.platform == "linux":
        library, version = platform.libc_ver()
        has_wheel &= library == "glibc" and tuple(map(int, version.split(".")[:2])) >= (2, 28)
    if not has_wheel or toolchain.missing_packages() != [toolchain.JPEG_PACKAGE]:
        return []
    return ["comma-deps-libjpeg>=3.1,<4"]


setup(
    packages=[*find_packages(include=["fastdino", "fastdino.*"]), "fastdino.kernels"],
    # Not a package of its own: the top-level name `kernels` belongs to another project.
    package_dir={"fastdino.kernels": "kernels"},
    package_data={"fastdino": ["py.typed", "*.pyi", "visualize/static/*", "visualize/static/*/*"]},
    ext_modules=[
        Extension(
            "fastdino._native",
            sources=toolchain.sources(),
            depends=sorted(str(path) for path in Path("csrc").rglob("*.[hi]*")),
            language="c++",
            extra_compile_args=[*toolchain.COMPILE_FLAGS, "-O3", "-g0", "-fvisibility=hidden", "-pthread"],
            extra_link_args=["-pthread"],
        )
    ],
    cmdclass={"build_ext": BuildNative},
    setup_requires=build_requirements(),
)
