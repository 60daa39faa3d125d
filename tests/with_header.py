"""A ProxyCommand for ssh: connects to the gate with the PROXY header of a client.

PORT SOURCE VERSION; then stdin and stdout are the connection.
"""

import os
import socket
import sys
import threading

from deploy.header import header


def main() -> None:
    port, source, version = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    connection = socket.create_connection(("127.0.0.1", port))
    target = "::1" if ":" in source else "10.0.0.1"
    connection.sendall(header(version, (source, 5), (target, 22)))

    def back() -> None:
        try:
            while data := connection.recv(65536):
                os.write(1, data)
        finally:
            os._exit(0)  # whether closed or reset: ssh must see the end

    threading.Thread(target=back, daemon=True).start()
    while data := os.read(0, 65536):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
    threading.Event().wait(10)


if __name__ == "__main__":
    main()
