#!/bin/sh
# The first process of a node: what it sees of the machine is its own. When it dies, all of the node does.
# $1 is the node's folder, $2 the size of /srv, $3 `containerd` if it runs that, $4 a folder with another
# containerd than the machine's, $5 the size of containerd's disk.
set -e
cd "$1"
mkdir -p etc/sudoers.d lib home srv
mount --make-rprivate /
for name in passwd group shadow; do
  [ -e "etc/$name" ] || cp "/etc/$name" etc/
done
if ! grep -q '^ops:' etc/passwd; then
  echo 'ops:x:1500:1500::/home/ops:/bin/bash' >>etc/passwd
  echo 'ops:x:1500:' >>etc/group
  echo 'ops:*:19000:0:99999:7:::' >>etc/shadow
  echo 'Defaults use_pty' >etc/sudoers
  echo 'root ALL=(ALL:ALL) ALL' >>etc/sudoers
  echo '@includedir /etc/sudoers.d' >>etc/sudoers
  echo 'ops ALL=(root) NOPASSWD: ALL' >etc/sudoers.d/ops
  chmod 440 etc/sudoers etc/sudoers.d/ops
  chown root:root etc/sudoers etc/sudoers.d/ops
  mkdir -p home/ops
  # A login shell that talks.
  echo 'echo welcome to this machine; echo mind the gap >&2' >home/ops/.bashrc
  chown -R 1500:1500 home/ops
fi
mkdir -p /var/lib/containerd /etc/containerd /etc/sudoers.d
for name in passwd group shadow sudoers sudoers.d; do mount --bind "etc/$name" "/etc/$name"; done
if [ -n "${5-}" ]; then mount -t tmpfs -o "size=$5" tmpfs /var/lib/containerd
else mount --bind lib /var/lib/containerd; fi
if [ -n "${4-}" ]; then
  for name in containerd containerd-shim-runc-v2 ctr; do mount --bind "$4/$name" "/usr/bin/$name"; done
fi
mount --bind home /home
# A home as a server's root has it, and not that of whoever works on this machine.
mkdir -p root
[ -e root/.bashrc ] || echo 'PATH=$PATH:/usr/local/go/bin' >root/.bashrc
mount --bind root /root
mount -t tmpfs -o "size=$2,mode=1777" tmpfs /srv
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/sshd /run/containerd
: >containerd.toml
cat >containerd.toml <<END
version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.btrfs"]
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
END
mount --bind containerd.toml /etc/containerd/config.toml 2>/dev/null || { : >/etc/containerd/config.toml; mount --bind containerd.toml /etc/containerd/config.toml; }
/usr/sbin/sshd -D -e -f "$1/sshd_config" >>sshd.log 2>&1 &
echo $! >sshd.pid
if [ "${3-}" = containerd ]; then
  containerd -c containerd.toml >>containerd.log 2>&1 &
  echo $! >containerd.pid
  while ! ctr version >/dev/null 2>&1; do sleep 0.05; done
fi
touch ready
trap 'exit 0' TERM
while :; do wait || :; sleep 0.2; done
