"""A phone on the cable: the native runner, pushed and spoken to through the adb client; nothing is installed.

The runner speaks over the stdin and stdout of one `adb shell -T`. By adb's own text (client/commandline.cpp in AOSP),
`exec-out` carries no stdin and `exec-in` no stdout; `shell` carries both, and with -T no terminal stands between that
would change a byte; in shell protocol 2 (Android 7 and later) it has stderr apart, and the exit status of what it ran.
Kiln opens no socket. The adb client itself starts a server that listens on this machine's loopback (tcp:5037).
"""
