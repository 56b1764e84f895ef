"""Which hooks run at what, as whom, and what certbot's users bring along."""

import json
import os
import pwd
from pathlib import Path

import msgspec
import pytest

from broker.runtime.paths import Paths
from broker.runtime.settings import Hook, Node, Settings
from broker.wire.console_api import HookTrial
from tests.workers.small_ca import DOMAIN, SmallCA
from tests.workers.test_hook import configure, environment, program, try_hook
from workers.certstore import CertificateStore
from workers.renewal.hook import PlainPause
from workers.renewal.hookset import HookSet, environment_of, order_of

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
CERTBOT_SCRIPT = """\
set -e

for domain in $RENEWED_DOMAINS; do
        case $domain in
        nas.test.internal)
                daemon_cert_root=@ROOT@

                # Make sure the certificate and private key files are
                # never world readable, even just for an instant while
                # we're copying them into daemon_cert_root.
                umask 077

                cp "$RENEWED_LINEAGE/fullchain.pem" "$daemon_cert_root/$domain.cert"
                cp "$RENEWED_LINEAGE/privkey.pem" "$daemon_cert_root/$domain.key"

                # Apply the proper file ownership and permissions for
                # the daemon to read its certificate and key.
                chmod 400 "$daemon_cert_root/$domain.cert" \\
                        "$daemon_cert_root/$domain.key"
                ;;
        esac
done
"""
"""The example of certbot's own manual (section "Renewing certificates"), but for the daemon."""


@pytest.fixture
def hooks(paths: Paths, settings: Settings) -> HookSet:
    """The hooks of a node without any."""
    return HookSet(paths, settings, PlainPause())


def test_a_hook_that_is_gone_when_its_turn_comes_has_failed_and_the_others_run(
    hooks: HookSet, paths: Paths
) -> None:
    """A package is being removed: an error here would leave the delivery half done."""
    place = paths.home / "hooks.d" / "deploy"
    program(place, f"rm {place}/2-gone", "1-first")
    program(place, "exit 0", "2-gone")
    program(place, f"mkdir {paths.home}/ran", "3-last")
    runs = hooks.run("deploy", "renewed", {"CERTMESH_SERIAL": ""})
    assert [(run.hook, run.failed) for run in runs] == [
        ("deploy/1-first", False),
        ("deploy/2-gone", True),
        ("deploy/3-last", False),
    ]
    assert "cannot look at" in runs[1].output


@pytest.mark.parametrize("event", ["revoked", "ca_changed", "crl_changed"])
def test_what_happens_to_the_node_is_told_to_hooks_that_ask_for_it_only(
    hooks: HookSet, paths: Paths, event: str
) -> None:
    """Scripts written for certbot know of renewals only, and would restart services for nothing."""
    for stage in ("pre", "deploy", "post"):
        program(paths.home / "hooks.d" / stage, "exit 9", "script")
    say = ["/bin/sh", "-c", "echo $CERTMESH_EVENT"]
    configure(
        paths,
        {"name": "usual", "command": ["/bin/true"]},
        {"name": "asked", "command": say, "event": [event, "renewed"]},
    )
    told = environment(paths)
    runs = [run for stage in ("pre", "deploy", "post") for run in hooks.run(stage, event, told)]
    assert [(run.hook, run.event, run.output) for run in runs] == [("asked", event, f"{event}\n")]


@AS_ROOT
def test_under_root_a_hook_is_nobodys_unless_it_says_whose(
    paths: Paths, settings: Settings
) -> None:
    """Least privilege is the default; root's rights have to be asked for by name."""
    plain = Hook(name="a", command=("x",))
    named = Hook(name="b", command=("x",), user="root")
    assert order_of(plain, Node()).user == "nobody"
    assert order_of(plain, Node(hook_user="daemon")).user == "daemon"
    assert order_of(plain, Node(hook_user="")).user == "nobody"
    assert order_of(named, Node()).user == "root"
    text = paths.settings.read_text().replace('hook_user = "root"', "")
    paths.settings.write_text(text)
    configure(
        paths,
        {"name": "plain", "command": ["/usr/bin/id", "-un"]},
        {"name": "named", "command": ["/usr/bin/id", "-un"], "user": "root"},
    )
    hooks = HookSet(paths, settings, PlainPause())
    runs = hooks.run("deploy", "renewed", environment(paths))
    assert [run.output for run in runs] == ["nobody\n", "root\n"]


@AS_ROOT
def test_only_the_user_that_nobody_named_is_confined() -> None:
    """Who names a user may have given it rights by sudo on purpose."""
    plain = Hook(name="a", command=("x",))
    assert order_of(plain, Node()).confined
    assert not order_of(plain, Node(hook_user="root")).confined
    assert not order_of(Hook(name="a", command=("x",), user="daemon"), Node()).confined


@AS_ROOT
def test_a_usual_user_that_does_not_exist_fails_that_hook_with_a_clear_word(
    paths: Paths, settings: Settings
) -> None:
    """A typing error in `hook_user` must not end the worker, nor run the hook as root."""
    paths.settings.write_text('[node]\nhook_user = "no-such-user-here"\n')
    configure(paths, {"name": "web", "command": ["/bin/true"]})
    hooks = HookSet(paths, settings, PlainPause())
    (run,) = hooks.run("deploy", "renewed", environment(paths))
    assert run.failed
    assert "there is no user 'no-such-user-here'" in run.output


@AS_ROOT
def test_a_file_of_hooks_d_runs_as_its_owner_root(paths: Paths, settings: Settings) -> None:
    """As certbot's users expect; a file of anybody else in that place is not run at all."""
    paths.settings.write_text("")
    file = Path(program(paths.home / "hooks.d" / "deploy", "id -un", "who"))
    hooks = HookSet(paths, settings, PlainPause())
    (run,) = hooks.run("deploy", "renewed", environment(paths))
    assert run.output == "root\n"
    os.chown(file, pwd.getpwnam("nobody").pw_uid, -1)
    (run,) = hooks.run("deploy", "renewed", environment(paths))
    assert "written by others" in run.output


@pytest.mark.skipif(os.geteuid() == 0, reason="root may become anybody")
def test_a_node_of_an_ordinary_user_runs_hooks_as_that_user() -> None:
    """`hook_user` is for nodes of root only."""
    order = order_of(Hook(name="a", command=("x",)), Node())
    assert (order.user, order.confined) == ("", False)


def test_a_script_written_for_certbot_runs_as_it_is(
    paths: Paths, settings: Settings, tmp_path: Path
) -> None:
    """People bring their deploy hooks along; this one is from certbot's manual, word for word."""
    ca, store = SmallCA(), CertificateStore(paths.certificates, "nas")
    store.install(ca.sign(store.prepare(), "nas"), ca.issuing, ca.root)
    script = CERTBOT_SCRIPT.replace("@ROOT@", str(tmp_path))
    program(paths.home / "hooks.d" / "deploy", script, "daemon.sh")
    hooks = HookSet(paths, settings, PlainPause())
    (run,) = hooks.run("deploy", "renewed", environment_of(store, store.live()))
    assert (run.exit, run.output) == (0, "")
    for suffix, file in (("cert", "fullchain.pem"), ("key", "key.pem")):
        copied = tmp_path / f"nas.{DOMAIN}.{suffix}"
        assert copied.read_bytes() == (store.live_link / file).read_bytes()


def test_trying_a_hook_shows_as_whom_it_runs_and_what_it_is_told(paths: Paths) -> None:
    """`certmesh hook test -v`; the event is one that the hook asks for."""
    say = ["/bin/sh", "-c", "env | sort"]
    configure(paths, {"name": "web", "command": say, "event": ["ca_changed"]})
    trial = msgspec.json.decode(try_hook(paths, "web").stdout, type=HookTrial)
    seen = dict(line.split("=", 1) for line in trial.output.splitlines())
    for made_by_the_shell in ("PWD", "OLDPWD", "SHLVL", "_"):
        seen.pop(made_by_the_shell, None)
    assert seen == {name: text for name, text in trial.environment.items() if name != "_"}
    assert trial.environment["CERTMESH_EVENT"] == trial.event == "ca_changed"
    assert trial.environment["CERTMESH_DRY_RUN"] == "1"
    assert json.dumps(trial.environment)
