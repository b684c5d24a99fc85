#!/bin/sh
# arm64_pocl.sh FOLDER: Debian's PoCL for arm64, with all it stands on, unpacked into FOLDER/root for qemu-user.
# apt gets a state of its own, so nothing is installed and this system's packages and architectures stay as they are.
set -eu
folder=$(mkdir -p "$1" && cd "$1" && pwd)
mkdir -p "$folder/state/lists/partial" "$folder/cache/archives/partial" "$folder/bin"
: >"$folder/state/status"
cat >"$folder/apt.conf" <<END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "";
Dir::State "$folder/state";
Dir::State::status "$folder/state/status";
Dir::Cache "$folder/cache";
END
export APT_CONFIG="$folder/apt.conf"
apt-get update -qq
apt-get install -y -qq --no-install-recommends --download-only pocl-opencl-icd libc6
for package in "$folder"/cache/archives/*.deb; do dpkg-deb -x "$package" "$folder/root"; done
# PoCL links what it compiles with the command `ld`, which qemu-user starts from this machine: the cross compiler's.
libraries=$(dirname "$(aarch64-linux-gnu-gcc -print-libgcc-file-name)")
printf '#!/bin/sh\nexec aarch64-linux-gnu-ld -L%s -L/usr/aarch64-linux-gnu/lib "$@"\n' "$libraries" >"$folder/bin/ld"
chmod +x "$folder/bin/ld"
rm -rf "$folder/cache" "$folder/state"
touch "$folder/done"
