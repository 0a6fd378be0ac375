"""The .deb as it would be installed, the environment module in it, and the recipes of Spack and Apptainer."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import types

BUILD, SOURCE, CMAKE = os.environ["MDM_BUILD"], os.environ["MDM_SOURCE"], os.environ["MDM_CMAKE"]
PACKAGING = os.path.join(SOURCE, "cmake", "packaging")


class NotHere(Exception):
    """What the test needs is not installed."""


def run(*words, **options):
    return subprocess.run(words, capture_output=True, text=True, timeout=200, **options)


def unpacked(work):
    return os.path.join(work, "root", "usr")


def the_deb_is_built_and_names_what_it_needs(work):
    if not shutil.which("dpkg-deb") or not shutil.which("dpkg-shlibdeps"):
        raise NotHere("dpkg-dev")
    cpack = os.path.join(os.path.dirname(CMAKE), "cpack")
    made = run(cpack, "--config", f"{BUILD}/CPackConfig.cmake", "-G", "DEB", "-B", work)
    assert made.returncode == 0, made.stdout + made.stderr
    debs = [f for f in os.listdir(work) if f.endswith(".deb")]
    assert len(debs) == 1 and re.fullmatch(r"mdm-dist_[0-9.]+_\w+\.deb", debs[0]), debs
    deb = os.path.join(work, debs[0])
    fields = dict(re.findall(r"^ ?(\w[\w-]*): (.*)$", run("dpkg-deb", "-I", deb).stdout, re.M))
    for library in ("openmpi-bin", "libhdf5-openmpi", "libdnnl", "libopenblas0-openmp", "libyaml-0-2", "libjansson4", "libc6"):
        assert library in fields["Depends"], (library, fields["Depends"])
    assert run("dpkg-deb", "-x", deb, os.path.join(work, "root")).returncode == 0
    modes = [os.stat(os.path.join(folder, f)).st_mode & 0o777 for folder, _, files in os.walk(os.path.join(work, "root")) for f in files]
    assert set(modes) <= {0o644, 0o755}, [oct(m) for m in set(modes)]


def the_installed_program_works_with_its_configs_pages_and_completions(work):
    usr = unpacked(work)
    program = usr + "/bin/mdm-dist"
    version = run(program, "--version")
    assert version.returncode == 0 and version.stdout.startswith("mdm-dist "), version
    assert BUILD not in run("readelf", "-d", program).stdout
    config = run(program, f"{usr}/share/mdm-dist/configs/cifar10.yaml", "--print-config")
    assert config.returncode == 0 and "preact_resnet18" in config.stdout, config.stderr
    pages = set(os.listdir(usr + "/share/man/man1"))
    named = {"mdm-dist-" + line.replace(" ", "-") + ".1" for line in run(program, "man", "--list").stdout.splitlines()}
    assert pages == named | {"mdm-dist.1"} and len(named) > 12, pages ^ named
    for page in pages:
        with open(f"{usr}/share/man/man1/{page}") as f:
            assert f.readline().startswith(".TH"), page
    with open(usr + "/share/bash-completion/completions/mdm-dist") as f:
        assert "complete" in f.read()
    for path in ("zsh/vendor-completions/_mdm-dist", "fish/vendor_completions.d/mdm-dist.fish", "doc/mdm-dist/copyright",
                 "doc/mdm-dist/docs/method.md", "mdm-dist/launch/slurm.sbatch"):
        assert os.path.getsize(f"{usr}/share/{path}") > 0, path


def the_environment_module_puts_the_program_on_the_path(work):
    command = next((c for c in ("/usr/lib/x86_64-linux-gnu/modulecmd.tcl", "/usr/lib/modulecmd.tcl") if os.path.exists(c)), None)
    if not command or not shutil.which("tclsh"):
        raise NotHere("environment-modules")
    usr = unpacked(work)
    script = f"""
eval "$(tclsh {command} sh use {usr}/share/mdm-dist/modulefiles)"
eval "$(tclsh {command} sh load mdm-dist)"
command -v mdm-dist && echo "$MDM_DIST_HOME" && echo "$MANPATH" && mdm-dist --version
eval "$(tclsh {command} sh unload mdm-dist)"
command -v mdm-dist || echo gone
"""
    told = run("sh", "-c", script, env={"PATH": "/usr/bin:/bin", "HOME": work}).stdout.splitlines()
    assert told[0] == usr + "/bin/mdm-dist" and told[1] == usr + "/share/mdm-dist", told
    assert usr + "/share/man" in told[2] and told[3].startswith("mdm-dist ") and told[4] in ("gone", "/usr/bin/mdm-dist"), told


class SpackRecipe:
    """What a recipe may call, recorded; the real Spack is not needed to read one."""

    def __init__(self):
        self.calls = []
        module = types.ModuleType("spack.package")
        for name in ("version", "variant", "depends_on", "generator"):
            setattr(module, name, lambda *words, _name=name, **more: self.calls.append((_name, words, more)))

        class CMakePackage:
            @staticmethod
            def define(key, value):
                return f"-D{key}={value}"

            def define_from_variant(self, key, name):
                return f"-D{key}={'ON' if name in self.on else 'OFF'}"
        module.CMakePackage = CMakePackage
        module.CudaPackage = type("CudaPackage", (), {})
        sys.modules["spack"], sys.modules["spack.package"] = types.ModuleType("spack"), module
        names = {}
        with open(os.path.join(PACKAGING, "spack", "package.py")) as f:
            exec(compile(f.read(), "package.py", "exec"), names)
        self.recipe = names["MdmDist"]

    def named(self, kind):
        return [words[0] for name, words, _ in self.calls if name == kind]


def the_spack_recipe_asks_for_every_library_that_cmake_looks_for(work):
    recipe = SpackRecipe()
    wanted = " ".join(recipe.named("depends_on"))
    with open(os.path.join(SOURCE, "cmake", "dependencies.cmake")) as f:
        text = f.read()
    spack_names = {"yaml-0.1": "libyaml", "libxxhash": "xxhash", "zlib": "zlib-api", "libjpeg": "libjpeg-turbo"}
    sought = re.findall(r"pkg_check_modules\(\w+ (?:REQUIRED )?IMPORTED_TARGET ([\w.-]+)\)", text)
    assert len(sought) >= 6, sought
    for library in sought:
        assert spack_names.get(library, library) in wanted, library
    for library in ("mpi", "hdf5", "onednn", "openblas", "openssl"):
        assert library in wanted, library
    with open(os.path.join(SOURCE, "CMakeLists.txt")) as f:
        assert f"VERSION {recipe.named('version')[0]} " in f.read()
    for on, cuda in (((), "OFF"), (("tests", "cuda"), "ON")):
        package = recipe.recipe()
        package.on = on
        package.spec = types.SimpleNamespace(satisfies=lambda what, on=on: what[1:] in on,
                                             variants={"cuda_arch": types.SimpleNamespace(value=("90",))})
        arguments = package.cmake_args()
        assert f"-DMDM_CUDA={cuda}" in arguments and f"-DMDM_TESTS={cuda}" in arguments, arguments
    with open(os.path.join(BUILD, "CMakeCache.txt")) as f:
        cache = f.read()
    for argument in arguments:
        assert re.search(rf"^{argument[2:].split('=')[0]}:", cache, re.M) or "CUDA_ARCH" in argument, argument


def the_apptainer_recipe_is_made_of_sound_scripts_that_call_what_is_there(work):
    with open(os.path.join(PACKAGING, "apptainer.def")) as f:
        text = f.read()
    sections = dict(re.findall(r"^%(\w+)\n(.*?)(?=^%|\Z)", text, re.M | re.S))
    assert {"files", "post", "runscript", "test", "help"} <= set(sections), sections.keys()
    assert re.search(r"^Bootstrap: docker\nFrom: debian:12$", text, re.M)
    for name in ("post", "environment", "runscript", "test"):
        checked = run("sh", "-n", "-c", sections[name])
        assert checked.returncode == 0, (name, checked.stderr)
    called = re.findall(r"^\s+(?:\w+=\S+ )?(launch/\S+)", sections["post"], re.M)
    assert called == ["launch/install-dependencies.sh", "launch/build.sh"], called
    for script in called:
        assert os.access(os.path.join(SOURCE, script), os.X_OK), script
    path = f"{unpacked(work)}/bin:/usr/bin:/bin"  # the tests of the image, on the unpacked package
    for line in sections["test"].split("\n"):
        done = run("sh", "-c", line, env={"PATH": path, "HOME": work})
        assert done.returncode == 0, (line, done.stdout, done.stderr)


def main(tests):
    work, failed, absent = tempfile.mkdtemp(prefix="mdm-packages-"), 0, 0
    try:
        for test in tests:
            try:
                test(work)
                print(f"ok      {test.__name__}", flush=True)
            except NotHere as error:
                absent += 1
                print(f"skipped {test.__name__}: {error} is not installed", flush=True)
            except Exception as error:  # noqa: a failed test must not hide the others
                failed += 1
                print(f"FAILED  {test.__name__}: {type(error).__name__}: {error}", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    sys.exit(1 if failed else 77 if absent else 0)


main([the_deb_is_built_and_names_what_it_needs, the_installed_program_works_with_its_configs_pages_and_completions,
      the_environment_module_puts_the_program_on_the_path, the_spack_recipe_asks_for_every_library_that_cmake_looks_for,
      the_apptainer_recipe_is_made_of_sound_scripts_that_call_what_is_there])
