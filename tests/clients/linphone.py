#!/usr/bin/env python3
"""One Linphone engine as a child process: commands as JSON lines on standard input, events as JSON lines on standard output.

Commands (`do` names the command):
  configure   domain, proxy (SIP URI of the server), transport (udp, tcp, tls), user, password, folder (kept between
              runs: identity of the device, configuration, log); optional: ca (PEM file), hosts (file in the form of
              /etc/hosts that only this client reads), expires (seconds), publish_expires (seconds)
  register    signs in
  message     to (SIP URI), text; optional ref, given back in the events about this message
  publish     basic (open, closed); optional activity (RPID name such as busy, away, on-the-phone; online means none), note
  subscribe   friend (SIP URI)
  unregister  signs out and stays
  quit        ends; with abrupt true without a word to the server

Events (`event` names the event):
  ready          version, log (path of the engine's log)
  registration   state (none, progress, ok, cleared, failed), code (SIP status or 0), message
  message        from, text, id
  message_state  ref, id, state (in-progress, delivered, not-delivered, delivered-to-user, displayed, other), code
  presence       friend, basic (open, closed), activity (RPID name or null), note (or null)
  error          what
  bye            last words before a clean end

Debian packages: liblinphone10 and linphone-common. Without the grammars of the second the engine aborts at the first
address it reads. Python 3.11 and its standard library only.
"""

import ctypes
import json
import os
import queue
import sys
import threading
import time

ITERATE_SECONDS = 0.02
STOP_SECONDS = 4.0

P = ctypes.c_void_p
S = ctypes.c_char_p
I = ctypes.c_int
B = ctypes.c_ubyte  # the engine's bool_t is one octet

# Every function that is called, with result and arguments. Without this table ctypes takes results for 32-bit numbers
# and cuts pointers in half, which shows as a crash much later.
SIGNATURES = {
    "linphone_account_get_error_info": (P, [P]),
    "linphone_account_get_params": (P, [P]),
    "linphone_account_params_clone": (P, [P]),
    "linphone_account_params_enable_register": (None, [P, B]),
    "linphone_account_params_set_expires": (None, [P, I]),
    "linphone_account_params_set_identity_address": (I, [P, P]),
    "linphone_account_params_set_outbound_proxy_enabled": (None, [P, B]),
    "linphone_account_params_set_publish_enabled": (None, [P, B]),
    "linphone_account_params_set_publish_expires": (None, [P, I]),
    "linphone_account_params_set_push_notification_allowed": (None, [P, B]),
    "linphone_account_params_set_remote_push_notification_allowed": (None, [P, B]),
    "linphone_account_params_set_server_address": (I, [P, P]),
    "linphone_account_set_params": (I, [P, P]),
    "linphone_address_as_string_uri_only": (P, [P]),
    "linphone_address_unref": (None, [P]),
    "linphone_chat_message_add_callbacks": (None, [P, P]),
    "linphone_chat_message_cbs_set_msg_state_changed": (None, [P, P]),
    "linphone_chat_message_get_error_info": (P, [P]),
    "linphone_chat_message_get_from_address": (P, [P]),
    "linphone_chat_message_get_message_id": (S, [P]),
    "linphone_chat_message_get_utf8_text": (S, [P]),
    "linphone_chat_message_ref": (P, [P]),
    "linphone_chat_message_send": (None, [P]),
    "linphone_chat_room_create_message_from_utf8": (P, [P, S]),
    "linphone_core_add_account": (I, [P, P]),
    "linphone_core_add_auth_info": (None, [P, P]),
    "linphone_core_add_callbacks": (None, [P, P]),
    "linphone_core_cbs_set_account_registration_state_changed": (None, [P, P]),
    "linphone_core_cbs_set_message_received": (None, [P, P]),
    "linphone_core_cbs_set_notify_presence_received": (None, [P, P]),
    "linphone_core_create_account": (P, [P, P]),
    "linphone_core_create_account_params": (P, [P]),
    "linphone_core_create_friend_with_address": (P, [P, S]),
    "linphone_core_create_presence_activity": (P, [P, I, S]),
    "linphone_core_create_presence_model": (P, [P]),
    "linphone_core_enable_dns_srv": (None, [P, B]),
    "linphone_core_get_chat_room": (P, [P, P]),
    "linphone_core_get_default_friend_list": (P, [P]),
    "linphone_core_get_sal": (P, [P]),
    "linphone_core_get_version": (S, []),
    "linphone_core_iterate": (None, [P]),
    "linphone_core_set_default_account": (None, [P, P]),
    "linphone_core_set_log_file": (None, [P]),
    "linphone_core_set_log_level_mask": (None, [ctypes.c_uint]),
    "linphone_core_set_presence_model": (None, [P, P]),
    "linphone_core_set_root_ca": (None, [P, S]),
    "linphone_core_set_transports": (I, [P, P]),
    "linphone_core_set_use_files": (None, [P, B]),
    "linphone_core_start": (I, [P]),
    "linphone_core_stop_async": (None, [P]),
    "linphone_core_get_global_state": (I, [P]),
    "linphone_error_info_get_protocol_code": (I, [P]),
    "linphone_factory_create_address": (P, [P, S]),
    "linphone_factory_create_auth_info": (P, [P, S, S, S, S, S, S]),
    "linphone_factory_create_chat_message_cbs": (P, [P]),
    "linphone_factory_create_config": (P, [P, S]),
    "linphone_factory_create_core_cbs": (P, [P]),
    "linphone_factory_create_core_with_config_3": (P, [P, P, P]),
    "linphone_factory_create_transports": (P, [P]),
    "linphone_factory_get": (P, []),
    "linphone_factory_set_config_dir": (None, [P, S]),
    "linphone_factory_set_data_dir": (None, [P, S]),
    "linphone_factory_set_download_dir": (None, [P, S]),
    "linphone_config_set_int": (None, [P, S, S, I]),
    "linphone_config_set_string": (None, [P, S, S, S]),
    "linphone_friend_done": (None, [P]),
    "linphone_friend_edit": (None, [P]),
    "linphone_friend_enable_subscribes": (I, [P, B]),
    "linphone_friend_get_address": (P, [P]),
    "linphone_friend_get_presence_model": (P, [P]),
    "linphone_friend_list_add_friend": (I, [P, P]),
    "linphone_friend_list_enable_subscriptions": (None, [P, B]),
    "linphone_friend_set_inc_subscribe_policy": (I, [P, I]),
    "linphone_presence_activity_get_type": (I, [P]),
    "linphone_presence_model_add_activity": (I, [P, P]),
    "linphone_presence_model_add_note": (I, [P, S, S]),
    "linphone_presence_model_get_activity": (P, [P]),
    "linphone_presence_model_get_basic_status": (I, [P]),
    "linphone_presence_model_get_note": (P, [P, S]),
    "linphone_presence_model_set_basic_status": (I, [P, I]),
    "linphone_presence_note_get_content": (S, [P]),
    "linphone_transports_set_tcp_port": (None, [P, I]),
    "linphone_transports_set_tls_port": (None, [P, I]),
    "linphone_transports_set_udp_port": (None, [P, I]),
    "sal_set_dns_user_hosts_file": (None, [P, S]),
}

REGISTRATION = ["none", "progress", "ok", "cleared", "failed"]
MESSAGE_STATES = {1: "in-progress", 2: "delivered", 3: "not-delivered", 6: "delivered-to-user", 7: "displayed"}
ACTIVITIES = [
    "appointment", "away", "breakfast", "busy", "dinner", "holiday", "in-transit", "looking-for-work", "lunch", "meal",
    "meeting", "on-the-phone", "other", "performance", "permanent-absence", "playing", "presentation", "shopping",
    "sleeping", "spectator", "steering", "travel", "tv", "unknown", "vacation", "working", "worship",
]
BASIC_OPEN, BASIC_CLOSED = 0, 1
SUBSCRIBE_POLICY_ACCEPT = 2
GLOBAL_STATE_OFF = 0
PORT_RANDOM, PORT_OFF = -1, 0

output_lock = threading.Lock()


def emit(event, **fields):
    """Writes one event."""
    with output_lock:
        try:
            sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            # Nobody listens any more; an exception would only be swallowed inside the engine's callback.
            os._exit(1)


def text(octets):
    """Text of a C string, None for a null pointer."""
    return None if octets is None else octets.decode("utf-8", "replace")


class Refused(Exception):
    """A command that cannot be carried out; the message is for people."""


class Engine:
    """The library, one core, one account."""

    def __init__(self):
        self.lib = ctypes.CDLL("liblinphone.so.10")
        self.libc = ctypes.CDLL(None)
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(self.lib, name)
            function.restype, function.argtypes = result, arguments
        self.libc.fopen.restype, self.libc.fopen.argtypes = P, [S, S]
        self.libc.free.argtypes = [P]
        self.factory = self.lib.linphone_factory_get()
        self.core = None
        self.account = None
        self.publishing = False
        self.friends = {}
        self.references = {}
        # The engine keeps raw function pointers: a callback that Python collects is a crash in the next iteration.
        self.kept = [
            ctypes.CFUNCTYPE(None, P, P, I, S)(self.on_registration),
            ctypes.CFUNCTYPE(None, P, P, P)(self.on_message),
            ctypes.CFUNCTYPE(None, P, P)(self.on_presence),
            ctypes.CFUNCTYPE(None, P, I)(self.on_message_state),
        ]

    # Events of the engine

    def on_registration(self, _core, account, state, message):
        info = self.lib.linphone_account_get_error_info(account)
        code = self.lib.linphone_error_info_get_protocol_code(info) if info else 0
        name = REGISTRATION[state] if 0 <= state < len(REGISTRATION) else "none"
        emit("registration", state=name, code=code, message=text(message))

    def on_message(self, _core, _room, message):
        sender = self.uri(self.lib.linphone_chat_message_get_from_address(message))
        body = text(self.lib.linphone_chat_message_get_utf8_text(message))
        emit("message", **{"from": sender}, text=body, id=text(self.lib.linphone_chat_message_get_message_id(message)))

    def on_message_state(self, message, state):
        info = self.lib.linphone_chat_message_get_error_info(message)
        code = self.lib.linphone_error_info_get_protocol_code(info) if info else 0
        emit(
            "message_state",
            ref=self.references.get(message),
            id=text(self.lib.linphone_chat_message_get_message_id(message)),
            state=MESSAGE_STATES.get(state, "other"),
            code=code,
        )

    def on_presence(self, _core, friend):
        address = self.uri(self.lib.linphone_friend_get_address(friend))
        model = self.lib.linphone_friend_get_presence_model(friend)
        basic, activity, note = "closed", None, None
        if model:
            if self.lib.linphone_presence_model_get_basic_status(model) == BASIC_OPEN:
                basic = "open"
            first = self.lib.linphone_presence_model_get_activity(model)
            if first:
                kind = self.lib.linphone_presence_activity_get_type(first)
                activity = ACTIVITIES[kind] if 0 <= kind < len(ACTIVITIES) else None
            found = self.lib.linphone_presence_model_get_note(model, None)
            if found:
                note = text(self.lib.linphone_presence_note_get_content(found))
        emit("presence", friend=address, basic=basic, activity=activity, note=note)

    # Helpers

    def uri(self, address):
        """Text of an address; the engine's copy is freed."""
        if not address:
            return None
        raw = self.lib.linphone_address_as_string_uri_only(address)
        try:
            return text(ctypes.cast(raw, S).value)
        finally:
            self.libc.free(raw)

    def address(self, uri):
        """Parsed address; the caller gives it back with linphone_address_unref."""
        made = self.lib.linphone_factory_create_address(self.factory, uri.encode())
        if not made:
            raise Refused(f"not a SIP URI: {uri}")
        return made

    def signed_in(self):
        if self.account is None:
            raise Refused("configure must come first")

    # Commands

    def do_configure(self, command):
        if self.core is not None:
            raise Refused("configured already")
        folder = os.path.abspath(command["folder"])
        os.makedirs(folder, mode=0o700, exist_ok=True)
        # Everything the engine and its libraries keep for a user goes below the folder, never into the real home.
        for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
            os.environ[name] = folder
        log = self.open_log(folder)
        self.create_core(folder, command)
        self.create_account(command)
        emit("ready", version=text(self.lib.linphone_core_get_version()), log=log)

    def open_log(self, folder):
        path = os.path.join(folder, "linphone.log")
        handle = self.libc.fopen(path.encode(), b"a")
        if not handle:
            raise Refused(f"cannot write {path}")
        self.lib.linphone_core_set_log_file(handle)
        self.lib.linphone_core_set_log_level_mask(0x3F)
        return path

    def create_core(self, folder, command):
        for setter in ("config_dir", "data_dir", "download_dir"):
            getattr(self.lib, f"linphone_factory_set_{setter}")(self.factory, folder.encode())
        config = self.lib.linphone_factory_create_config(self.factory, os.path.join(folder, "linphonerc").encode())
        self.write_defaults(config)
        self.core = self.lib.linphone_factory_create_core_with_config_3(self.factory, config, None)
        if not self.core:
            raise Refused("the engine refused to start")
        # Files in place of sound devices: without a sound card the engine otherwise looks for one at every start.
        self.lib.linphone_core_set_use_files(self.core, 1)
        if command.get("ca"):
            self.lib.linphone_core_set_root_ca(self.core, command["ca"].encode())
        self.listen_on(command["transport"])
        callbacks = self.lib.linphone_factory_create_core_cbs(self.factory)
        self.lib.linphone_core_cbs_set_account_registration_state_changed(callbacks, self.kept[0])
        self.lib.linphone_core_cbs_set_message_received(callbacks, self.kept[1])
        self.lib.linphone_core_cbs_set_notify_presence_received(callbacks, self.kept[2])
        self.lib.linphone_core_add_callbacks(self.core, callbacks)
        self.lib.linphone_core_start(self.core)
        # SRV and NAPTR questions have nobody to answer them here and cost seconds each.
        self.lib.linphone_core_enable_dns_srv(self.core, 0)
        if command.get("hosts"):
            # The certificate is checked against a host name, never against an address, so a test needs names.
            self.lib.sal_set_dns_user_hosts_file(self.lib.linphone_core_get_sal(self.core), command["hosts"].encode())

    def write_defaults(self, config):
        """Nothing but SIP: no sound, no video, no STUN, no look-ups at the vendor's servers."""
        numbers = {
            ("video", "capture"): 0, ("video", "display"): 0,
            ("sip", "guess_hostname"): 0, ("sip", "use_ipv6"): 0,
            ("sip", "verify_server_certs"): 1, ("sip", "verify_server_cn"): 1,
            ("misc", "version_check_url_root"): 0, ("net", "dns_srv_enabled"): 0,
        }
        for (section, key), value in numbers.items():
            self.lib.linphone_config_set_int(config, section.encode(), key.encode(), value)

    def listen_on(self, transport):
        """Only the transport asked for, on a port of the system's choice: 5060 belongs to whoever comes first."""
        ports = self.lib.linphone_factory_create_transports(self.factory)
        for name in ("udp", "tcp", "tls"):
            port = PORT_RANDOM if name == transport else PORT_OFF
            getattr(self.lib, f"linphone_transports_set_{name}_port")(ports, port)
        if self.lib.linphone_core_set_transports(self.core, ports) != 0:
            raise Refused(f"transport {transport} cannot be opened")

    def create_account(self, command):
        user, domain = command["user"], command["domain"]
        # Realm left open: with a realm given the engine ignores challenges that name another one, without a word.
        info = self.lib.linphone_factory_create_auth_info(
            self.factory, user.encode(), None, command["password"].encode(), None, None, domain.encode()
        )
        self.lib.linphone_core_add_auth_info(self.core, info)
        params = self.lib.linphone_core_create_account_params(self.core)
        identity = self.address(f"sip:{user}@{domain}")
        server = self.address(command["proxy"])
        self.lib.linphone_account_params_set_identity_address(params, identity)
        self.lib.linphone_account_params_set_server_address(params, server)
        # As a route too: else requests to others go where their domain resolves to, not where we are signed in.
        self.lib.linphone_account_params_set_outbound_proxy_enabled(params, 1)
        self.lib.linphone_account_params_set_push_notification_allowed(params, 0)
        self.lib.linphone_account_params_set_remote_push_notification_allowed(params, 0)
        self.lib.linphone_account_params_set_expires(params, int(command.get("expires", 600)))
        self.lib.linphone_account_params_set_publish_expires(params, int(command.get("publish_expires", 600)))
        self.lib.linphone_account_params_enable_register(params, 0)
        self.account = self.lib.linphone_core_create_account(self.core, params)
        self.lib.linphone_core_add_account(self.core, self.account)
        self.lib.linphone_core_set_default_account(self.core, self.account)
        self.lib.linphone_address_unref(identity)
        self.lib.linphone_address_unref(server)

    def change_account(self, register=None, publish=None):
        """Parameters of an account cannot be changed in place: a changed copy is set."""
        self.signed_in()
        params = self.lib.linphone_account_params_clone(self.lib.linphone_account_get_params(self.account))
        if register is not None:
            self.lib.linphone_account_params_enable_register(params, register)
        if publish is not None:
            self.lib.linphone_account_params_set_publish_enabled(params, publish)
        if self.lib.linphone_account_set_params(self.account, params) != 0:
            raise Refused("the engine refused the account's settings")

    def do_register(self, _command):
        self.change_account(register=1)

    def do_unregister(self, _command):
        self.change_account(register=0)

    def do_message(self, command):
        self.signed_in()
        peer = self.address(command["to"])
        room = self.lib.linphone_core_get_chat_room(self.core, peer)
        self.lib.linphone_address_unref(peer)
        if not room:
            raise Refused(f"no conversation with {command['to']}")
        message = self.lib.linphone_chat_room_create_message_from_utf8(room, command["text"].encode())
        # A reference of our own: states arrive after the room let go of the message.
        self.lib.linphone_chat_message_ref(message)
        self.references[message] = command.get("ref")
        callbacks = self.lib.linphone_factory_create_chat_message_cbs(self.factory)
        self.lib.linphone_chat_message_cbs_set_msg_state_changed(callbacks, self.kept[3])
        self.lib.linphone_chat_message_add_callbacks(message, callbacks)
        self.lib.linphone_chat_message_send(message)

    def do_publish(self, command):
        self.signed_in()
        model = self.lib.linphone_core_create_presence_model(self.core)
        basic = BASIC_OPEN if command["basic"] == "open" else BASIC_CLOSED
        self.lib.linphone_presence_model_set_basic_status(model, basic)
        name = command.get("activity")
        if name and name != "online":
            if name not in ACTIVITIES:
                raise Refused(f"unknown activity {name}; known: online, {', '.join(ACTIVITIES)}")
            activity = self.lib.linphone_core_create_presence_activity(self.core, ACTIVITIES.index(name), None)
            self.lib.linphone_presence_model_add_activity(model, activity)
        if command.get("note"):
            self.lib.linphone_presence_model_add_note(model, command["note"].encode(), None)
        self.lib.linphone_core_set_presence_model(self.core, model)
        # Publishing is off until asked for: an account that publishes announces "online" by itself at sign-in.
        if not self.publishing:
            self.change_account(publish=1)
            self.publishing = True

    def do_subscribe(self, command):
        self.signed_in()
        uri = command["friend"]
        if uri in self.friends:
            raise Refused(f"already subscribed to {uri}")
        friend = self.lib.linphone_core_create_friend_with_address(self.core, uri.encode())
        if not friend:
            raise Refused(f"not a SIP URI: {uri}")
        self.lib.linphone_friend_edit(friend)
        self.lib.linphone_friend_enable_subscribes(friend, 1)
        self.lib.linphone_friend_set_inc_subscribe_policy(friend, SUBSCRIBE_POLICY_ACCEPT)
        self.lib.linphone_friend_done(friend)
        contacts = self.lib.linphone_core_get_default_friend_list(self.core)
        self.lib.linphone_friend_list_enable_subscriptions(contacts, 1)
        self.lib.linphone_friend_list_add_friend(contacts, friend)
        self.friends[uri] = friend

    def stop(self):
        """Leaves cleanly: removes publication, subscriptions, registration, within a bound."""
        if self.core is None:
            return
        self.lib.linphone_core_stop_async(self.core)
        end = time.monotonic() + STOP_SECONDS
        while self.lib.linphone_core_get_global_state(self.core) != GLOBAL_STATE_OFF and time.monotonic() < end:
            self.lib.linphone_core_iterate(self.core)
            time.sleep(ITERATE_SECONDS)

    def iterate(self):
        if self.core is not None:
            self.lib.linphone_core_iterate(self.core)


def read_commands(commands):
    """Feeds the queue; end of input means that whoever started us is gone."""
    for line in sys.stdin:
        if line.strip():
            commands.put(line)
    commands.put(None)


def carry_out(engine, line):
    """One command; False ends the process."""
    try:
        command = json.loads(line)
        verb = command["do"]
        if verb == "quit":
            if not command.get("abrupt"):
                engine.stop()
            return False
        action = getattr(engine, f"do_{verb}", None)
        if action is None:
            raise Refused(f"unknown command {verb}")
        action(command)
    except Refused as refused:
        emit("error", what=str(refused))
    except (json.JSONDecodeError, KeyError, TypeError) as wrong:
        emit("error", what=f"bad command: {wrong!r}")
    return True


def main():
    engine = Engine()
    commands = queue.Queue()
    threading.Thread(target=read_commands, args=(commands,), daemon=True).start()
    running = True
    while running:
        engine.iterate()
        try:
            line = commands.get(timeout=ITERATE_SECONDS)
        except queue.Empty:
            continue
        running = line is not None and carry_out(engine, line)
    emit("bye")
    # The engine's own threads may outlive its core; nothing of ours is left to do.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
