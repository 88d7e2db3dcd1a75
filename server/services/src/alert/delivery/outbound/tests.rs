use super::*;

#[test]
fn addresses_lead_where_the_registries_say() {
    let table = [
        (
            Reach::Public,
            "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 172.15.255.255 172.32.0.0 192.167.0.1 \
             198.17.0.1 198.20.0.0 223.255.255.255 2606:4700:4700::1111 2a00:1450::1 2002:808:808::1 64:ff9b::808:808 \
             ::ffff:8.8.8.8 2001:4860::8888 2001:200::1",
        ),
        (
            Reach::Private,
            "127.0.0.1 127.255.255.255 10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.1 100.64.0.0 \
             100.127.255.255 198.18.0.1 198.19.255.255 ::1 fc00::1 fdff:ffff::1 fec0::1 ::ffff:127.0.0.1 ::ffff:10.1.2.3 \
             64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::1 2002:7f00:1::1 2002:c0a8:101::",
        ),
        (
            Reach::Nowhere,
            "0.0.0.0 0.1.2.3 169.254.169.254 169.254.0.1 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 198.51.100.7 203.0.113.9 \
             224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 100.100.100.200 168.63.129.16 :: ::2 ::127.0.0.1 \
             ::ffff:0.0.0.0 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1 2001::1 2001:0:7f00:1::1 \
             2001:2::1 2001:10::1 2001:20::1 2001:db8::1 3fff::1 fe80::1 febf::1 ff02::1 100::1 fd00:ec2::254 4000::1 5f00::1",
        ),
    ];

    for (expected, addresses) in table {
        for address in addresses.split_whitespace() {
            assert_eq!(reach(address.parse().unwrap()), expected, "{address}");
        }
    }
}

#[test]
fn odd_spellings_of_this_machine_are_recognised() {
    let guard = Guard {
        allow_private: false,
        loopback_only: false,
    };
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.0.1.",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "0177.0.0.1",
        "%31%32%37.0.0.1",
        "１２７.0.0.1",
        "127。0。0。1",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "user:password@127.0.0.1",
        "example.org@127.0.0.1",
    ] {
        let url = Url::parse(&format!("http://{host}/hook")).unwrap();
        assert!(guard.check_literal(&url).unwrap_err().is_private, "{host}");
    }
    let url = Url::parse("http://example.org/127.0.0.1").unwrap();
    assert_eq!(guard.check_literal(&url), Ok(()));
}

#[test]
fn allowing_private_networks_allows_neighbours_but_not_metadata() {
    let guard = Guard {
        allow_private: true,
        loopback_only: false,
    };

    for (ip, expected) in [
        ("127.0.0.1", true),
        ("10.0.0.1", true),
        ("169.254.169.254", false),
        ("0.0.0.0", false),
    ] {
        assert_eq!(guard.allows(ip.parse().unwrap()), expected, "{ip}");
    }
    let url = Url::parse("http://169.254.169.254/latest/meta-data").unwrap();
    let forbidden = guard.check_literal(&url).unwrap_err();
    assert!(
        !forbidden.to_string().contains("DEADBEAT_ALLOW_PRIVATE_NETWORKS"),
        "{forbidden}"
    );
}

#[test]
fn of_a_name_with_several_addresses_only_the_allowed_are_used() {
    let guard = Guard {
        allow_private: false,
        loopback_only: false,
    };
    let addresses = |list: &[&str]| {
        list.iter()
            .map(|ip| SocketAddr::new(ip.parse().unwrap(), 0))
            .collect::<Vec<_>>()
    };

    let kept = guard
        .keep(
            "mixed.example.org",
            &addresses(&["127.0.0.1", "1.1.1.1", "fe80::1"]),
        )
        .unwrap();
    let refused = guard
        .keep("inside.example.org", &addresses(&["10.0.0.1", "169.254.169.254"]))
        .unwrap_err();

    assert_eq!(kept, addresses(&["1.1.1.1"]));
    let refused = refused.downcast::<Forbidden>().unwrap();
    assert_eq!(
        *refused,
        Forbidden {
            host: "inside.example.org".to_owned(),
            is_private: true
        }
    );
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_refused_with_the_setting_that_allows_it() {
    let settings = OutboundSettings {
        ports: Vec::new(),
        allow_private_networks: false,
        loopback_only: false,
        user_agent: "Deadbeat/test".to_owned(),
    };
    let outbound = Outbound::new(&settings).unwrap();

    let refused = outbound
        .post("http://localhost:9/hook", HeaderMap::new(), Vec::new())
        .await
        .unwrap_err();

    assert!(
        matches!(
            &refused,
            OutboundError::Forbidden(Forbidden { is_private: true, .. })
        ),
        "{refused:?}"
    );
    assert!(
        refused.to_string().contains("DEADBEAT_ALLOW_PRIVATE_NETWORKS"),
        "{refused}"
    );
}

#[tokio::test]
async fn only_http_is_spoken() {
    let settings = OutboundSettings {
        ports: Vec::new(),
        allow_private_networks: true,
        loopback_only: false,
        user_agent: "Deadbeat/test".to_owned(),
    };
    let outbound = Outbound::new(&settings).unwrap();

    for url in [
        "file:///etc/passwd",
        "ftp://example.org/",
        "http://",
        "http://[::1",
        "nonsense",
    ] {
        let refused = outbound
            .post(url, HeaderMap::new(), Vec::new())
            .await
            .unwrap_err();
        assert!(matches!(refused, OutboundError::Url(_)), "{url}: {refused:?}");
    }
}

#[test]
fn ports_of_other_services_are_refused_unless_the_operator_allows_them() {
    let outbound = |allow_private_networks, ports| {
        Outbound::new(&OutboundSettings {
            allow_private_networks,
            loopback_only: false,
            ports,
            user_agent: "test".to_owned(),
        })
        .unwrap()
    };
    let (plain, some, private) = (
        outbound(false, Vec::new()),
        outbound(false, vec![25, 0]),
        outbound(true, Vec::new()),
    );

    for (port, by_plain, by_some, by_private) in [
        (80, true, true, true),
        (443, true, true, true),
        (1024, true, true, true),
        (65_535, true, true, true),
        (25, false, true, true),
        (22, false, false, true),
        (1023, false, false, true),
        (0, false, false, false),
    ] {
        let url = format!("https://example.org:{port}/hook");
        assert_eq!(
            [&plain, &some, &private].map(|one| one.check(&url).is_ok()),
            [by_plain, by_some, by_private],
            "{port}"
        );
    }
    assert!(plain.check("https://example.org/hook").is_ok());
    assert_eq!(
        plain.check("http://example.org:22/"),
        Err(OutboundError::Port(22))
    );
}

#[test]
fn what_can_never_be_posted_to_is_known_without_a_lookup() {
    let outbound = |allow_private_networks| {
        Outbound::new(&OutboundSettings {
            allow_private_networks,
            loopback_only: false,
            ports: Vec::new(),
            user_agent: "test".to_owned(),
        })
        .unwrap()
    };

    for (url, allowed_in_private) in [
        ("http://127.0.0.1:8080/", true),
        ("http://127.1/", true),
        ("http://[::1]/", true),
        ("http://10.0.0.1/", true),
        ("http://localhost:9000/", true),
        ("http://db.localhost./", true),
        ("http://169.254.169.254/latest", false),
        ("http://0.0.0.0/", false),
        ("http:///", false),
        ("http://exa mple/", false),
        ("ftp://example.org/", false),
    ] {
        assert!(outbound(false).check(url).is_err(), "{url}");
        assert_eq!(outbound(true).check(url).is_ok(), allowed_in_private, "{url}");
    }
}

/// A receiver without TLS, one that closes the connection, and a port without a listener: each has its own reason.
#[tokio::test]
async fn the_label_says_where_an_attempt_broke_off() {
    let outbound = Outbound::new(&OutboundSettings {
        allow_private_networks: true,
        loopback_only: false,
        ports: Vec::new(),
        user_agent: "test".to_owned(),
    })
    .unwrap();
    let receiver = deadbeat_testkit::Receiver::start().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}/", closed.local_addr().unwrap());
    drop(closed);
    receiver.then(deadbeat_testkit::Reply::close());
    // A server of another protocol.
    let greeting = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let greets = format!("https://{}/", greeting.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = greeting.accept().await.unwrap();
        let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, b"220 mail.example.org ESMTP\r\n").await;
        let _ = tokio::io::AsyncReadExt::read(&mut socket, &mut [0; 1024]).await;
    });

    for (url, reason) in [
        (receiver.url("/"), Reason::Connection),
        (greets, Reason::Tls),
        (nobody, Reason::Connection),
        ("http://no-such-host.invalid/".to_owned(), Reason::Connection),
        ("http://169.254.169.254/".to_owned(), Reason::RefusedAddress),
        ("http://127.0.0.1:0/".to_owned(), Reason::RefusedAddress),
    ] {
        let error = outbound
            .post(&url, HeaderMap::new(), Vec::new())
            .await
            .unwrap_err();
        assert_eq!(error.reason(), reason, "{url}: {error:?}");
    }
}

#[tokio::test]
async fn tests_reach_this_machine_alone() {
    let outbound = Outbound::new(&OutboundSettings {
        allow_private_networks: true,
        loopback_only: true,
        ports: Vec::new(),
        user_agent: "test".to_owned(),
    })
    .unwrap();
    let receiver = deadbeat_testkit::Receiver::start().await;

    for url in [
        "https://api.telegram.org/",
        "http://10.0.0.1:8000/",
        "http://1.1.1.1/",
    ] {
        let refused = outbound.post(url, HeaderMap::new(), Vec::new()).await;
        assert!(refused.is_err(), "{url}");
    }
    assert!(
        outbound
            .post(&receiver.url("/"), HeaderMap::new(), Vec::new())
            .await
            .is_ok()
    );
}
