# Removes a lab: $1 is the prefix of its network namespaces, $2 its folder, $3 the process that owns it.
# First waits for end of file on standard input, which the owner closes explicitly or by exiting.
trap '' HUP INT TERM PIPE
cat >/dev/null

namespaces=$(cd /run/netns 2>/dev/null && ls -d "$1"* 2>/dev/null)
if [ -n "$namespaces" ]; then
    # Kill all processes in the namespaces: daemons, and commands started by `lab exec`.
    inodes=$(cd /run/netns && stat -L -c %i $namespaces 2>/dev/null)
    for pass in 1 2 3; do
        pids=$(stat -L -c '%i %n' /proc/[0-9]*/ns/net 2>/dev/null |
            awk -v inodes="$inodes" -v owner="$3" '
                BEGIN { split(inodes, list, "\n"); for (i in list) ours[list[i]] = 1 }
                $1 in ours { split($2, part, "/"); if (part[3] != owner) print part[3] }')
        [ -n "$pids" ] || break
        kill -KILL $pids 2>/dev/null
        sleep 0.02
    done
    for namespace in $namespaces; do echo "netns del $namespace"; done | ip -force -batch -
fi
rm -rf "$2"
# Remove the folder of all labs if this was the last lab.
rmdir "${2%/*}" 2>/dev/null
exit 0
