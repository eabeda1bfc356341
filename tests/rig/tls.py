"""A CA made on the spot, certificates good and bad, and haproxy as TLS terminator."""
import os
import socket
import ssl
import subprocess

CA_CONFIG = """
[ca]
default_ca = d
[d]
dir = {dir}
database = {dir}/index.txt
serial = {dir}/serial
new_certs_dir = {dir}
default_md = sha256
policy = p
email_in_dn = no
rand_serial = yes
unique_subject = no
copy_extensions = copy
[p]
commonName = supplied
[req]
distinguished_name = dn
prompt = no
[dn]
CN = unused
"""


def openssl(*args, cwd):
    p = subprocess.run(["openssl", *args], cwd=cwd, capture_output=True, text=True)
    assert p.returncode == 0, f"openssl {' '.join(args)}: {p.stderr}"


class Pki:
    """ca: the trusted one; other_ca: unknown to chmux. Certificates: good, expired, wrong_host,
    unknown_issuer (servers), client and client_other (clients). Attributes are PEM paths; servers'
    *_pem files hold certificate and key together, as haproxy wants them."""

    def __init__(self, folder):
        self.dir = str(folder)
        self.ca = self._ca("ca", "chmux test CA")
        self.other_ca = self._ca("other", "some other CA")
        self.good = self._leaf("good", "ca", "DNS:localhost,IP:127.0.0.1,IP:::1")
        self.expired = self._leaf("expired", "ca", "DNS:localhost,IP:127.0.0.1", start="200101000000Z", end="210101000000Z")
        self.wrong_host = self._leaf("wrong_host", "ca", "DNS:elsewhere.test")
        self.unknown_issuer = self._leaf("unknown_issuer", "other", "DNS:localhost,IP:127.0.0.1")
        self.client = self._leaf("client", "ca", "DNS:client.test")
        self.client_other = self._leaf("client_other", "other", "DNS:client.test")

    def path(self, name):
        return os.path.join(self.dir, name)

    def key(self, cert_pem):
        """The key alone of a certificate made here."""
        return cert_pem.replace(".pem", ".key")

    def cert(self, cert_pem):
        return cert_pem.replace(".pem", ".crt")

    def _ca(self, name, cn):
        d = self.path(name + ".d")
        os.mkdir(d)
        open(os.path.join(d, "index.txt"), "w").close()
        with open(os.path.join(d, "ca.cnf"), "w") as f:
            f.write(CA_CONFIG.format(dir=d))
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                "-subj", f"/CN={cn}", "-keyout", "ca.key", "-out", "ca.crt",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign", cwd=d)
        return os.path.join(d, "ca.crt")

    def _leaf(self, name, ca, san, start=None, end=None):
        d = self.path(ca + ".d")
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", "ca.cnf",
                "-subj", f"/CN={name}", "-addext", f"subjectAltName={san}",
                "-keyout", self.path(name + ".key"), "-out", f"{name}.csr", cwd=d)
        dates = ["-startdate", start, "-enddate", end] if start else ["-days", "20"]
        openssl("ca", "-batch", "-notext", "-config", "ca.cnf", "-cert", "ca.crt", "-keyfile", "ca.key", *dates,
                "-in", f"{name}.csr", "-out", self.path(name + ".crt"), cwd=d)
        with open(self.path(name + ".pem"), "w") as out:
            for part in (name + ".crt", name + ".key"):
                with open(self.path(part)) as f:
                    out.write(f.read())
        return self.path(name + ".pem")

    def server_context(self, pem=None, max_version=None, client_ca=None):
        """For a FakeUpstream that speaks TLS itself."""
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.load_cert_chain(pem or self.good)
        if max_version:
            ctx.maximum_version = max_version
        if client_ca:
            ctx.load_verify_locations(client_ca)
            ctx.verify_mode = ssl.CERT_REQUIRED
        return ctx


class TlsTerminator:
    """haproxy in TCP mode: TLS on a port of its own in front of target (host, port)."""

    def __init__(self, folder, pem, target, client_ca=None, options=""):
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.addr = self.sock.getsockname()
        self.port = self.addr[1]
        self.url = f"https://localhost:{self.port}"
        verify = f" ca-file {client_ca} verify required" if client_ca else ""
        config = os.path.join(str(folder), f"haproxy-{self.port}.cfg")
        with open(config, "w") as f:
            f.write(
                "global\n maxconn 2000\n nbthread 1\n"
                "defaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n"
                f"frontend f\n bind fd@{self.sock.fileno()} ssl crt {pem}{verify} {options}\n default_backend b\n"
                f"backend b\n server s {target[0]}:{target[1]}\n"
            )
        self.log = open(config + ".log", "w")
        self.proc = subprocess.Popen(["haproxy", "-db", "-f", config], pass_fds=[self.sock.fileno()],
                                     stdout=self.log, stderr=self.log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.proc.poll() is None:
            self.proc.terminate()
        self.proc.wait(10)
        self.sock.close()
        self.log.close()
