use super::*;
use etherparse::PacketBuilder;

const CLIENT: [u8; 4] = [192, 0, 2, 2];
const SERVER: [u8; 4] = [203, 0, 113, 1];
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn udp(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(MAC, MAC)
        .ipv4(CLIENT, SERVER, 64)
        .udp(ports.0, ports.1);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

fn ip(protocol: IpNumber, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(MAC, MAC).ipv4(CLIENT, SERVER, 64);
    let mut frame = Vec::new();
    builder.write(&mut frame, protocol, payload).unwrap();
    frame
}

fn ip_v6(protocol: IpNumber, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(MAC, MAC).ipv6([1; 16], [2; 16], 64);
    let mut frame = Vec::new();
    builder.write(&mut frame, protocol, payload).unwrap();
    frame
}

fn kind(frame: &[u8]) -> Packet {
    parse_frame(frame).0
}

fn ike_message() -> Vec<u8> {
    let mut message = vec![7; 28];
    message[16..20].copy_from_slice(&[0, 0x20, 35, 0x08]);
    message[20..28].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 28]);
    message
}

fn marked(message: &[u8]) -> Vec<u8> {
    [&NON_ESP_MARKER, message].concat()
}

fn is_clear(packet: &Packet) -> bool {
    matches!(packet, Packet::Clear { .. })
}

#[test]
fn esp_is_known_in_ipv4_in_ipv6_and_in_udp_behind_a_translated_port() {
    let esp = [0, 0, 0x10, 1, 0, 0, 0, 9, 1, 2, 3];
    let plain = ip(IpNumber::ENCAPSULATING_SECURITY_PAYLOAD, &esp);
    let plain_v6 = ip_v6(IpNumber::ENCAPSULATING_SECURITY_PAYLOAD, &esp);
    let translated = udp((40_001, 4500), &esp);
    for (frame, in_udp) in [(plain, false), (plain_v6, false), (translated, true)] {
        let (packet, bytes) = parse_frame(&frame);
        assert!(
            matches!(packet, Packet::Esp { spi: 0x1001, seq: 9, udp, .. } if udp == in_udp),
            "{packet:?}"
        );
        assert_eq!(bytes, Some(&esp[..]));
    }
}

#[test]
fn ike_is_known_on_500_and_behind_the_marker_on_4500() {
    let on_500 = kind(&udp((500, 500), &ike_message()));
    let on_4500 = kind(&udp((4500, 40_001), &marked(&ike_message())));
    assert_eq!(on_500, on_4500);
    assert!(
        matches!(
            on_500,
            Packet::Ike {
                exchange: 35,
                message_id: 1,
                from_initiator: true,
                response: false,
                initiator_spi: 0x0707_0707_0707_0707,
                ..
            }
        ),
        "{on_500:?}"
    );
}

#[test]
fn what_only_pretends_to_be_ike_is_clear() {
    assert!(is_clear(&kind(&udp((500, 500), b"GET / HTTP/1.1"))));
    assert!(is_clear(&kind(&udp((500, 500), &[0x50; 40]))));
    assert!(is_clear(&kind(&udp((4500, 4500), &marked(b"short")))));
    assert!(is_clear(&kind(&udp((4500, 4500), b"short"))));
    assert!(is_clear(&kind(&udp((53, 5000), &ike_message()))));
}

#[test]
fn malformed_packets_with_an_ip_header_count_as_clear() {
    let broken_tcp = ip(IpNumber::TCP, &[0xff; 5]);
    let broken_icmp = ip(IpNumber::ICMP, &[8]);
    let mut longer_than_it_is = udp((4000, 4000), &[0; 100]);
    longer_than_it_is.truncate(60);
    for frame in [broken_tcp, broken_icmp, longer_than_it_is] {
        assert!(is_clear(&kind(&frame)), "{frame:?}");
    }
}

#[test]
fn a_keepalive_is_nobodys_data() {
    assert_eq!(kind(&udp((4500, 40_001), &[0xff])), Packet::Other);
    assert!(is_clear(&kind(&udp((500, 500), &[0xff]))));
    assert!(is_clear(&kind(&ip_v6(IpNumber::IPV6_ICMP, &[135; 8]))));
}

#[test]
fn fragments_of_esp_are_told_apart_and_others_are_clear() {
    // Bytes 6 and 7 of the IPv4 header: "more fragments", and the offset.
    let part = |mut frame: Vec<u8>, bits: [u8; 2]| {
        frame[14 + 6..14 + 8].copy_from_slice(&bits);
        kind(&frame)
    };
    let esp = ip(IpNumber::ENCAPSULATING_SECURITY_PAYLOAD, &[9; 64]);
    let esp_in_udp = udp((4500, 4500), &[9; 64]);
    for packet in [
        part(esp.clone(), [0x20, 0]),
        part(esp, [0, 8]),
        part(esp_in_udp.clone(), [0x20, 0]),
    ] {
        assert!(matches!(packet, Packet::EspFragment { .. }), "{packet:?}");
    }
    assert!(is_clear(&part(esp_in_udp, [0, 8])));
    assert!(is_clear(&part(udp((4000, 4000), &[9; 64]), [0x20, 0])));
}
