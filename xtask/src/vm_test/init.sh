#!/bin/busybox sh
# The guest's first process: mounts, loads modules, runs the scenarios, hands the results over, powers off.
#
# The kernel makes variables of what its command line has and it does not know:
#   XSTACK_VM_FILTERS  which scenarios to run, by parts of their names, with commas between; empty for all
#   XSTACK_VM_LONG     1 for those that only long runs have, too
#   XSTACK_VM_SHELL    1 for a shell on the console instead
#   XSTACK_VM_NIC, XSTACK_VM_QUEUES  for the scenarios
# What scenarios print goes out over the second serial port, so that the kernel's messages on the first never mix with it;
# the files in /results go out as a tar on the disk.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root RUST_BACKTRACE=1

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mount -t bpf bpf /sys/fs/bpf
mount -t debugfs debugfs /sys/kernel/debug
# What the kernel does wrong ends the guest, with its words on the console.
echo 1 > /proc/sys/kernel/panic_on_oops

while read -r module; do
    modprobe "$module" 2>/dev/null
done < /etc/modules
ip link set lo up

scenarios() {
    set -f
    IFS=,
    # shellcheck disable=SC2086 # One word for each filter.
    set -- $XSTACK_VM_FILTERS
    unset IFS
    [ "$XSTACK_VM_LONG" = 1 ] && set -- --include-ignored "$@"
    /scenarios --test-threads=1 --nocapture "$@"
}

if [ "$XSTACK_VM_SHELL" = 1 ]; then
    echo "Run scenarios by: /scenarios --test-threads=1 --nocapture FILTER; leave by: exit"
    setsid cttyhack sh
    poweroff -f
fi

report=/dev/ttyS1
stty -F $report raw -echo
echo "vm: up $(uname -r)" > $report
scenarios > $report 2>&1
code=$?
dmesg > /results/dmesg.txt
tar -cf /dev/vda -C /results .
sync
echo "vm: ended $code" > $report
poweroff -f
