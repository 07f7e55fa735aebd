//! What root inside a sandbox must not be able to do.

use warren_runtime::{Runtime, Sandbox};

use crate::harness::{Host, ok, sh, spec};

#[tokio::test]
async fn root_inside_has_no_power_over_the_host() {
    let host = Host::start(1);
    let sandbox = host.boot().await;
    for forbidden in [
        "mount -t tmpfs none /mnt",
        "umount /proc",
        "mknod /tmp/disk b 8 0",
        "unshare -U true",
        "unshare -m true",
        "nsenter -t 1 -m true",
        "echo x > /proc/sys/kernel/hostname",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "echo b > /proc/sysrq-trigger",
        "echo 1 > /sys/kernel/profiling",
        "mkdir /sys/fs/cgroup/x",
        "mkdir /dev/x",
        "modprobe dummy",
        "dmesg",
        "hostname other",
        "ip link set eth0 down",
        "ip address add 10.0.0.1/8 dev eth0",
        "date -s 2020-01-01",
        "chroot /proc/1/root/../../.. test -e /work",
        "python3 -c 'import os; os.open(\"/proc/1/exe\", os.O_WRONLY)'",
        "test -s /proc/kcore",
        "test -s /proc/timer_list",
        "chown 70000 /root",
        "chattr +i /etc/passwd",
        "test -n \"$(ls -A /sys/firmware)\"",
    ] {
        let (status, text) = sh(&sandbox, forbidden).await;
        assert_ne!(status, 0, "{forbidden}: {text}");
    }
    // clone3 does not exist, so that the flags of clone can be read.
    let call = |number: u32| format!("perl -e 'print syscall({number},0,0), \" \", $!+0'");
    assert_eq!(ok(&sandbox, &call(435)).await, "-1 38");
    for (name, number) in [
        ("keyctl", 250),
        ("bpf", 321),
        ("io_uring_setup", 425),
        ("fsopen", 430),
    ] {
        assert_eq!(ok(&sandbox, &call(number)).await, "-1 1", "{name}");
    }
    // The x32 numbers of the same calls do not exist either.
    assert_eq!(ok(&sandbox, &call(0x4000_0000 + 250)).await, "-1 38");
    let capabilities = ok(&sandbox, "grep CapBnd /proc/self/status").await;
    assert!(capabilities.ends_with("00000000a80425fb"), "{capabilities}");
    sandbox.destroy().await.unwrap();
    drop(sandbox);
    host.stop().await;
}

#[tokio::test]
async fn sandboxes_see_neither_processes_nor_networks_of_others() {
    let host = Host::start(2);
    let (one, other) = (host.boot().await, host.boot().await);
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = "ip -4 -br address show eth0 | awk '{print $3}' | cut -d/ -f1";
    let target = ok(&other, address).await;
    let connect = |to: &str, port: u16| {
        format!(
            "timeout 2 python3 -c \"import socket; socket.create_connection(('{to}',{port}),1)\""
        )
    };
    ok(&other, "python3 -c \"import socket,time; s=socket.create_server(('0.0.0.0',9)); time.sleep(60)\" >/dev/null 2>&1 & sleep 0.3").await;
    ok(&other, &connect(&target, 9)).await;
    let mut targets = vec![
        (target, 9),
        ("169.254.169.254".to_owned(), 80),
        ("10.213.0.1".to_owned(), port),
        ("127.0.0.1".to_owned(), port),
    ];
    for own in host.own_addresses() {
        targets.push((own, port));
    }
    for (to, port) in targets {
        let (status, text) = sh(&one, &connect(&to, port)).await;
        assert_ne!(status, 0, "{to}:{port} {text}");
    }
    let processes = ok(&one, "ps -e -o comm= | sort -u | tr '\\n' ' '").await;
    assert!(
        !processes.contains("bash") && processes.contains("runtime-test"),
        "{processes}"
    );
    for sandbox in [&one, &other] {
        sandbox.destroy().await.unwrap();
    }
    drop((one, other));
    host.stop().await;
}

#[tokio::test]
async fn a_denied_sandbox_resolves_and_reaches_nothing_but_events() {
    let host = Host::start(2);
    let events = host.runtime.bind_tcp(80).unwrap();
    let names = host.runtime.bind_tcp(53).unwrap();
    let mut closed = spec();
    closed.policy.internet = false;
    let closed = host.runtime.boot(closed).await.unwrap();
    let open = host.boot().await;
    let connect = |port: u16| {
        format!(
            "python3 -c \"import socket; socket.create_connection(('events.e2b.local',{port}),2)\""
        )
    };
    let events = tokio::net::TcpListener::from_std(events).unwrap();
    let _names = tokio::net::TcpListener::from_std(names).unwrap();
    ok(&closed, &connect(80)).await;
    let (_, peer) = events.accept().await.unwrap();
    assert_eq!(host.runtime.slot_of(peer.ip()), Some(closed.record().slot));
    assert_ne!(sh(&closed, &connect(53)).await.0, 0);
    ok(&open, &connect(53)).await;
    assert_ne!(sh(&open, &connect(81)).await.0, 0);
    let policy = |internet| warren_types::NetworkPolicy {
        internet,
        egress: None,
    };
    closed.set_policy(policy(true)).await.unwrap();
    ok(&closed, &connect(53)).await;
    closed.set_policy(policy(false)).await.unwrap();
    assert_ne!(sh(&closed, &connect(53)).await.0, 0);
    assert!(!closed.record().policy.internet);
    for sandbox in [&closed, &open] {
        sandbox.destroy().await.unwrap();
    }
    drop((closed, open));
    host.stop().await;
}

#[tokio::test]
#[ignore = "needs the internet"]
async fn public_addresses_are_reached_unless_denied() {
    use std::net::ToSocketAddrs;
    let public = ("deb.debian.org", 80)
        .to_socket_addrs()
        .unwrap()
        .find(|at| at.is_ipv4())
        .unwrap();
    let host = Host::start(1);
    let sandbox = host.boot().await;
    let (to, port) = (public.ip(), public.port());
    let connect =
        format!("python3 -c \"import socket; socket.create_connection(('{to}',{port}),5)\"");
    ok(&sandbox, &connect).await;
    sandbox
        .set_policy(warren_types::NetworkPolicy::closed())
        .await
        .unwrap();
    assert_ne!(sh(&sandbox, &connect).await.0, 0);
    sandbox.destroy().await.unwrap();
    drop(sandbox);
    host.stop().await;
}
