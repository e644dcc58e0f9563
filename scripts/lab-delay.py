#!/usr/bin/env python3
"""What netem would do, in user space: holds up the frames between two interfaces of this network namespace.

  lab-delay.py relay IF_A IF_B MS JITTER   until it is killed; neither may be a port of a bridge
  lab-delay.py plain IF...                 no offloads: frames as large as the wire's, with their checksums

A frame that comes later never overtakes one that came earlier: jitter is not reordering, which TCP would take for loss.
"""
import ctypes
import fcntl
import heapq
import random
import select
import socket
import struct
import sys
import time

ETH_P_ALL = 3
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23
SO_RCVBUFFORCE = 33
SIOCETHTOOL = 0x8946
TX_CHECKSUM, TSO, GSO, GRO = 0x17, 0x1F, 0x24, 0x2C
QUEUE_MAX = 20_000  # frames; a sender that is faster loses the newest


def plain(name):
    control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for command in (GRO, TSO, GSO, TX_CHECKSUM):
        value = ctypes.create_string_buffer(struct.pack("II", command, 0))
        request = struct.pack("16sP", name.encode(), ctypes.addressof(value)) + bytes(16)
        try:
            fcntl.ioctl(control, SIOCETHTOOL, request)
        except OSError as error:
            print(f"{name}: offload {command:#x} stays: {error}", file=sys.stderr)


def port(name):
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    opened.bind((name, 0))
    opened.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    opened.setblocking(False)
    return opened


def relay(names, delay, jitter):
    ports = [port(name) for name in names]
    other = {ports[0]: ports[1], ports[1]: ports[0]}
    latest = dict.fromkeys(ports, 0.0)
    queue, number = [], 0
    while True:
        wait = max(0.0, queue[0][0] - time.monotonic()) if queue else None
        for source in select.select(ports, [], [], wait)[0]:
            try:
                while True:
                    frame = source.recv(65_600)
                    number += 1
                    due = max(latest[source], time.monotonic() + delay + random.random() * jitter)
                    latest[source] = due
                    if len(queue) < QUEUE_MAX:
                        heapq.heappush(queue, (due, number, other[source], frame))
            except OSError:  # nothing more for now, or the link is down
                pass
        while queue and queue[0][0] <= time.monotonic():
            _, _, target, frame = heapq.heappop(queue)
            try:
                target.send(frame)
            except OSError:
                pass


match sys.argv[1:]:
    case ["plain", *names] if names:
        for each in names:
            plain(each)
    case ["relay", first, second, delay_ms, jitter_ms]:
        relay((first, second), float(delay_ms) / 1e3, float(jitter_ms) / 1e3)
    case _:
        sys.exit(__doc__)
