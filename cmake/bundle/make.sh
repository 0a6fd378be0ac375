#!/bin/bash
# cmake/bundle/make.sh BUILD VERSION: packs mdm-dist with Open MPI, HDF5 and all they need into BUILD/bundle and
# BUILD/mdm-dist-VERSION-linux-x86_64.tar.xz, for machines where nothing can be installed. `cmake --build BUILD --target bundle`
# calls it after everything was built. NVIDIA's libraries are not packed: they are found where a CUDA program runs.
set -euo pipefail
build=$(cd -- "$1" && pwd)
version=$2
source=$(cd -- "$(dirname -- "$0")/../.." && pwd)
bundle=$build/bundle
command -v orted >/dev/null || {
    echo "orted is missing: a bundle is made from Open MPI 4.1, as Debian 12 has it, not from Open MPI 5" >&2
    exit 4
}
rm -rf "$bundle"
mkdir -p "$bundle"/{bin,libexec,lib/glibc,lib/openmpi,lib/pmix,share,etc,checks/golden}

# The C library's own parts come along apart: they are used only where the machine's are older (bin/start).
is_glibc() {
    case $1 in
    libc.so.* | libm.so.* | libmvec.so.* | libdl.so.* | libpthread.so.* | librt.so.* | libresolv.so.* | libutil.so.* | ld-linux*) ;;
    *) return 1 ;;
    esac
}

# pack FILE...: the libraries that programs or plugins need, each once.
pack() {
    local path name
    ldd "$@" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\/.*ld-linux/ { print $1 }' | sort -u | while read -r path; do
        name=$(basename "$path")
        if is_glibc "$name"; then
            cp -L "$path" "$bundle/lib/glibc/$name"
        elif [ ! -e "$bundle/lib/$name" ]; then
            cp -L "$path" "$bundle/lib/$name"
        fi
    done
}

mpi_path() { ompi_info --parsable --path "$1" | sed "s/^path:$1://"; }
plugins=$(mpi_path pkglibdir)
# Fabrics need libraries of their own and drivers of the machine; between nodes MPI takes TCP, and gradients take NCCL.
for plugin in "$plugins"/*.so; do
    case $(basename "$plugin") in
    *ofi* | *openib* | *ucx* | *psm* | mca_sshmem* | mca_spml* | mca_scoll* | mca_memheap* | mca_atomic* | *flux*) ;;
    *) cp -L "$plugin" "$bundle/lib/openmpi/" ;;
    esac
done
cp -RL "$(mpi_path pkgdatadir)" "$bundle/share/openmpi"
mkdir -p "$bundle/etc/openmpi"
printf '%s\n' 'btl_base_warn_component_unused=0' 'btl = vader,tcp,self' 'pml = ob1' 'osc = ^ucx,pt2pt' \
    >"$bundle/etc/openmpi/openmpi-mca-params.conf"
pmix=$(ldconfig -p | awk '$1 == "libpmix.so.2" && !path { path = $NF } END { print path }')
[ -n "$pmix" ] || pmix=$(find /usr/lib /usr/lib64 -name libpmix.so.2 -print -quit 2>/dev/null)
pmix_plugins=$(find "$(dirname "$(readlink -f "$pmix")")" -type d -name pmix -print -quit)
[ -z "$pmix_plugins" ] || cp -L "$pmix_plugins"/*.so "$bundle/lib/pmix/"
cp -L "$pmix" "$bundle/lib/"

cp -L "$(command -v mpirun)" "$bundle/libexec/mpirun"
cp -L "$(command -v orted)" "$bundle/libexec/orted"
cp "$build/mdm-dist" "$bundle/libexec/mdm-dist"
cp "$source"/cmake/bundle/{start,run-checks} "$bundle/bin/"
for name in mdm-dist mpirun orted; do ln -s start "$bundle/bin/$name"; done

# What run-checks runs: the tests that compute on a device, as listed by the build, and their numbers.
while read -r name ranks program; do
    cp "$program" "$bundle/libexec/$name"
    ln -sf start "$bundle/bin/$name"
    echo "$name $ranks" >>"$bundle/checks/list"
done <"$build/gpu-checks"
cp "$source"/tests/golden/*.h5 "$bundle/checks/golden/"
cp "$source"/configs/quickstart.yaml "$bundle/checks/"
if [ -d /usr/share/datasets/fashion-mnist ]; then
    "$build/mdm-dist" data import /usr/share/datasets/fashion-mnist "$bundle/checks/all.h5"
    "$build/mdm-dist" data noise "$bundle/checks/all.h5" "$bundle/checks/noisy.h5" --samples 600 --hold-out 8,9 --ood 0.2 \
        --symmetric 0.4 --seed 1
    rm "$bundle/checks/all.h5"
fi

pack "$bundle"/libexec/* "$bundle"/lib/*.so* "$bundle"/lib/openmpi/*.so "$bundle"/lib/pmix/*.so
strip --strip-unneeded "$bundle"/libexec/* "$bundle"/lib/*.so* "$bundle"/lib/openmpi/*.so 2>/dev/null || true
objdump -T "$bundle"/libexec/mdm-dist "$bundle"/lib/*.so* 2>/dev/null | grep -o 'GLIBC_2\.[0-9]*' | sort -uV | tail -n 1 |
    sed 's/GLIBC_//' >"$bundle/lib/glibc/needed"
cp "$source/LICENSE" "$bundle/"

archive=$build/mdm-dist-$version-linux-x86_64.tar.xz
tar -C "$build" --owner=0 --group=0 --sort=name -c bundle | xz -6 -T0 >"$archive"
echo "$archive: $(du -h "$archive" | cut -f1)"
