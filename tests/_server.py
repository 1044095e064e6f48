"""A web server in this process that cuts connections, returns errors and sends wrong data."""

import http.server
import time


class Server(http.server.ThreadingHTTPServer):
    """Sends `body`. `ranges` lists the requested ranges; if `cut` is set, each response ends after that many bytes."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = b""
        self.ranges, self.responses, self.cut, self.resumes, self.pause = [], [], None, True, 0.0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/weights.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, body, requested = self.server, self.server.body, self.headers.get("Range")
        server.ranges.append(requested)
        if response := server.responses.pop(0) if server.responses else None:
            status, headers = response
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()
            if status == 200:
                self.wfile.write(body)
            return
        start = int(requested.removeprefix("bytes=").rstrip("-")) if requested and server.resumes else 0
        if start >= len(body):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        time.sleep(server.pause)
        self.wfile.write(body[start:][: server.cut])

    def log_message(self, *args):
        pass
