#!/bin/sh
# Unpacks Debian's kcat, with every package it would install here, into the folder $1, and
# leaves a starter at $1/kcat. Needs apt-get and dpkg, but not root; without them a kcat on
# the PATH is used.
set -eu
dir=$1
rm -rf "$dir" "$dir.part"
mkdir -p "$dir.part"

if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
	found=$(command -v kcat) || { echo "kcat: neither apt-get nor kcat here; hint: install kcat" >&2; exit 1; }
	ln -s "$found" "$dir.part/kcat"
	mv "$dir.part" "$dir"
	exit 0
fi

download() {
	# What a real installation would add to this machine, and kcat itself in any case.
	packages=$(apt-get install -s --reinstall --no-install-recommends kcat | awk '/^Inst /{print $2}')
	[ -n "$packages" ] || return 1
	(cd "$dir.part" && apt-get download -q $packages) >"$dir.part/log" 2>&1
}
if ! download 2>/dev/null; then
	echo "kcat: package lists are missing or old, updating them"
	apt-get update -q >/dev/null || { echo "kcat: hint: run 'apt-get update' as root once, then again" >&2; exit 1; }
	download || { cat "$dir.part/log" >&2; exit 1; }
fi
for deb in "$dir.part"/*.deb; do
	dpkg -x "$deb" "$dir.part/root"
	rm "$deb"
done
cat >"$dir.part/kcat" <<'END'
#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
libs=$(for d in "$here"/root/usr/lib/*-linux-gnu* "$here"/root/lib/*-linux-gnu* "$here"/root/usr/lib; do printf '%s:' "$d"; done)
LD_LIBRARY_PATH=$libs${LD_LIBRARY_PATH:-} exec "$here/root/usr/bin/kcat" "$@"
END
chmod +x "$dir.part/kcat"
"$dir.part/kcat" -V >/dev/null 2>"$dir.part/log" || { cat "$dir.part/log" >&2; exit 1; }
mv "$dir.part" "$dir"
