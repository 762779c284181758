"""Authorities of one's own: certificates that browsers and plain fetches trust beside the public ones.

Chromium has no switch for them; it reads the NSS database in its user's home (docs/linux/cert_management.md), which the
launcher makes in every profile.
"""

from __future__ import annotations

import re
import shutil
import ssl
from pathlib import Path

import attrs
import trio

from .errors import LaunchError

CERTUTIL_HINT = "certutil is missing: install it (Debian: apt install libnss3-tools)"
CERTUTIL_S = 20.0
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@attrs.frozen
class Authorities:
    """Certificates of authorities; made by `read`."""

    certificates: tuple[bytes, ...]
    """Each in DER."""

    @classmethod
    def read(cls, path: Path) -> Authorities:
        """Those in a PEM file. Raises ValueError that tells what is wrong with it, or that `certutil` is missing."""
        try:
            text = path.read_text("ascii", errors="replace")
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from error
        if "PRIVATE KEY-----" in text:
            raise ValueError("holds a private key, which nobody needs here: give the certificates alone")
        found = _CERTIFICATE.findall(text)
        if not found:
            raise ValueError("holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
        certificates: dict[bytes, None] = {}
        for number, pem in enumerate(found, 1):
            store = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            try:
                store.load_verify_locations(cadata=ssl.PEM_cert_to_DER_cert(pem))
            except ValueError as error:  # ssl.SSLError is one, too
                raise ValueError(f"certificate {number} cannot be read") from error
            # Of what it holds it gives authorities only.
            authorities = store.get_ca_certs(binary_form=True)
            if not authorities:
                raise ValueError(f"certificate {number} is not an authority's, but a server's or a person's")
            certificates |= dict.fromkeys(authorities)
        if shutil.which("certutil") is None:
            raise ValueError(CERTUTIL_HINT)
        return cls(tuple(certificates))

    def trust_in(self, context: ssl.SSLContext) -> None:
        """Let a client's TLS context trust them as Chromium does: also one that another authority signed."""
        context.load_verify_locations(cadata=b"".join(self.certificates))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN

    async def install(self, folder: Path) -> None:
        """Make the NSS database in an empty folder. Raises LaunchError, OSError."""
        commands = []
        for number, certificate in enumerate(self.certificates):
            (folder / f"{number}.der").write_bytes(certificate)
            # C: signs servers' certificates, and nothing else.
            commands.append(f"-A -d sql:. -n {number} -t C,, -i {number}.der\n")
        (folder / "commands").write_text("".join(commands))
        for arguments in (["-N", "--empty-password"], ["-B", "-i", "commands"]):
            await _certutil(folder, arguments)


async def _certutil(folder: Path, arguments: list[str]) -> None:
    try:
        with trio.fail_after(CERTUTIL_S):
            ended = await trio.run_process(
                ["certutil", *arguments, "-d", "sql:."],
                cwd=folder,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
    except FileNotFoundError as error:
        raise LaunchError(CERTUTIL_HINT) from error
    except trio.TooSlowError as error:
        raise LaunchError(f"certutil did not end within {CERTUTIL_S:g} s") from error
    if ended.returncode != 0:
        raise LaunchError(f"certutil made no database of --ca-file: {ended.stderr.decode(errors='replace')[-500:]}")
