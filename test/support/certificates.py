# SPDX-License-Identifier: Apache-2.0
"""Certificates that a test makes with OpenSSL's command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

CONFIG = """[ca]
default_ca = own
[own]
database = {folder}/index
new_certs_dir = {folder}
serial = {folder}/serial
default_md = sha256
policy = any
x509_extensions = server
unique_subject = no
[any]
commonName = supplied
[req]
distinguished_name = name
[name]
[server]
subjectAltName = IP:127.0.0.1,DNS:localhost
basicConstraints = CA:FALSE
"""


@dataclass(frozen=True)
class Pair:
    """A certificate for 127.0.0.1 that stands for itself, and its key. settings: as the server takes them."""

    cert: Path
    key: Path

    @property
    def settings(self) -> dict[str, str]:
        return {"tls_cert": str(self.cert), "tls_key": str(self.key)}


def pair(folder: Path, start: str = "20200101000000Z", end: str = "20900101000000Z") -> Pair:
    """A new pair in a folder, in place of an earlier one there."""
    folder.mkdir(exist_ok=True)
    (folder / "openssl.cnf").write_text(CONFIG.format(folder=folder))
    (folder / "index").write_text("")
    (folder / "serial").write_text("01\n")
    found = Pair(folder / "cert.pem", folder / "key.pem")
    new = folder / "new.pem"
    _openssl(
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-out",
        str(folder / "new.key"),
    )
    request, config = str(folder / "request"), str(folder / "openssl.cnf")
    _openssl(
        "req",
        "-new",
        "-config",
        config,
        "-key",
        str(folder / "new.key"),
        "-subj",
        "/CN=arm-1",
        "-out",
        request,
    )
    _openssl(
        "ca", "-selfsign", "-batch", "-notext", "-config", config, "-keyfile", str(folder / "new.key"), "-in", request,
        "-startdate", start, "-enddate", end, "-out", str(new),
    )  # fmt: skip
    (folder / "new.key").replace(found.key)
    new.replace(found.cert)
    return found


def _openssl(*words: str) -> None:
    ended = subprocess.run(["openssl", *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
