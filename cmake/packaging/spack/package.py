"""Spack recipe, for a checkout: put this file into a repository as packages/mdm-dist/package.py, then run
`spack dev-build mdm-dist@0.1.0` in mdm-dist's top folder."""
from spack.package import *


class MdmDist(CMakePackage, CudaPackage):
    """Learning from badly labelled pictures: Manifold DivideMix in C, over MPI."""

    version("0.1.0")  # the source is the folder that dev-build is run in

    variant("tests", default=False, description="Build the tests")

    depends_on("c", type="build")
    depends_on("cxx", type="build", when="+cuda")
    depends_on("cmake@3.18:", type="build")
    depends_on("ninja", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi")
    depends_on("hdf5@1.10: +mpi")
    depends_on("onednn@2.6:2 cpu_runtime=omp")
    depends_on("openblas threads=openmp")
    depends_on("libyaml")
    depends_on("jansson")
    depends_on("xxhash")
    depends_on("zlib-api")
    depends_on("openssl")
    depends_on("libjpeg-turbo")
    depends_on("libpng")
    depends_on("cmocka", when="+tests")
    depends_on("python", type="build", when="+tests")
    depends_on("cuda@12:", when="+cuda")
    depends_on("cudnn@9:", when="+cuda")

    generator("ninja")

    def cmake_args(self):
        arguments = [
            self.define_from_variant("MDM_TESTS", "tests"),
            self.define("MDM_CUDA", "ON" if self.spec.satisfies("+cuda") else "OFF"),
        ]
        if self.spec.satisfies("+cuda") and self.spec.variants["cuda_arch"].value[0] != "none":
            arguments.append(self.define("CMAKE_CUDA_ARCHITECTURES", ";".join(self.spec.variants["cuda_arch"].value)))
        return arguments
