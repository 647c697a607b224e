
# Common second half of the init script of machines. The first half defines:
#   kernels  the folder of the kernels' modules, by version
#   modules  the modules to load
#   prepare  a function for further setup; programs in $tools take precedence over all others
# The script is the first process of a machine whose root is the host's root. It mounts file systems for everything that
# is written, loads the modules, runs the program, and turns the machine off. It is in the machine's folder on the host,
# together with the program's script.
folder=${0%/*}
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
tools=/run/machine/bin
mkdir -p /run/lock /run/tmp "$tools" /run/machine/lib/modules /dev/shm
mount -t tmpfs tmpfs /dev/shm
export PATH="$tools:$PATH:/usr/sbin:/usr/bin:/sbin:/bin"
export TMPDIR=/run/tmp
prepare

# Only this kernel uses the folder of the modules; modprobe must be directed there.
ln -s "$kernels/$(uname -r)" /run/machine/lib/modules/
printf '#!/bin/sh\nexec "%s" -d /run/machine "$@"\n' "$(PATH=${PATH#*:} command -v modprobe)" >"$tools/modprobe"
chmod +x "$tools/modprobe"
echo "$tools/modprobe" >/proc/sys/kernel/modprobe
# shellcheck disable=SC2086 # they are words
modprobe -a $modules

ip link set lo up
ulimit -n 65536
# Keep kernel messages off the console, except critical ones.
echo 2 >/proc/sys/kernel/printk
echo 'portcullis-machine: the program begins'
sh "$folder/run" </dev/null
status=$?
echo "$status" >"$folder/status"
echo "portcullis-machine: the program ended with status $status"
sync
# Turning off takes a moment. The first process must not exit before, and the host's files may be gone by then.
sleep 60 &
echo o >/proc/sysrq-trigger
wait
