
# From here on, what machines of all kinds do. It follows the kind's own part, which says:
#   kernels  the folder where the kernel's modules lie, by its version
#   modules  what to load
#   prepare  a function that does the rest; what it puts into $tools is found before all other programs
# The whole is the first process of a machine whose root is the root of the host: it makes fresh whatever is written
# to, loads the modules, runs the program, and turns the machine off. It lies in the machine's folder on the host,
# beside what is to run.
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

# The modules lie where only this kernel looks; programs, and the kernel itself, must look there, too.
ln -s "$kernels/$(uname -r)" /run/machine/lib/modules/
printf '#!/bin/sh\nexec "%s" -d /run/machine "$@"\n' "$(PATH=${PATH#*:} command -v modprobe)" >"$tools/modprobe"
chmod +x "$tools/modprobe"
echo "$tools/modprobe" >/proc/sys/kernel/modprobe
# shellcheck disable=SC2086 # they are words
modprobe -a $modules

ip link set lo up
ulimit -n 65536
# The console is for the program; what breaks the kernel is told there, too.
echo 2 >/proc/sys/kernel/printk
echo 'portcullis-machine: the program begins'
sh "$folder/run" </dev/null
status=$?
echo "$status" >"$folder/status"
echo "portcullis-machine: the program ended with status $status"
sync
# Turning off takes a moment, and a machine whose first process ends panics. By then it may have lost the host's files.
sleep 60 &
echo o >/proc/sysrq-trigger
wait
