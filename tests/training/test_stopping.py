"""Stopping a process from outside, also one whose main thread never comes back to Python."""

import signal
import subprocess
import sys

import pytest

# A mutex that is locked twice: like a collective that waits for another rank, it heeds no signal and no Python handler.
PROGRAM = """
import ctypes, signal, sys, threading, time
from tf_bert.training.stopping import StopSignals, Watchdog

def hang():
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    print("hangs", flush=True)
    libc.pthread_mutex_lock(mutex)

requested = threading.Event()
"""


def start(code):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def outcome(process):
    printed, complaint = process.communicate(timeout=60)
    return process.returncode, printed.split(), complaint


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_first_signal_is_remembered_and_handlers_come_back(number):
    process = start(
        "with StopSignals(requested.set) as stop:\n"
        "    print('ready', flush=True)\n"
        "    requested.wait()\n"
        "print(stop.received.name)\n"
        "print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, signal.set_wakeup_fd(-1))\n"
    )
    process.stdout.readline()
    process.send_signal(number)
    assert outcome(process) == (0, [number.name, "True", "-1"], "")


def test_a_second_signal_ends_a_process_that_hangs():
    process = start("with StopSignals(lambda: print('heard', flush=True)): hang()")
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "heard\n"
    process.send_signal(signal.SIGINT)
    message = (
        "tf-bert: ended by a second signal after SIGTERM, without saving; the last complete checkpoint "
        "stands, and the same command goes on from it\n"
    )
    assert outcome(process) == (1, [], message)


@pytest.mark.parametrize("tells", [True, False])
def test_the_deadline_ends_a_process_that_hangs(tells):
    process = start(f"with StopSignals(requested.set, deadline_seconds=0.1, tells={tells}): hang()")
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    code, _, complaint = outcome(process)
    assert code == 1
    assert complaint.startswith("tf-bert: ended 0.1 seconds after SIGTERM, without saving;") == tells
    assert bool(complaint) == tells


def test_no_deadline_counts_before_a_signal_or_after_the_context():
    process = start(
        "with StopSignals(requested.set, deadline_seconds=0.2):\n"
        "    time.sleep(0.4)\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    requested.wait()\n"
        "time.sleep(0.4)\n"
    )
    assert outcome(process) == (0, [], "")


def test_the_watchdog_ends_a_process_that_hangs():
    code, _, complaint = outcome(start("with Watchdog(0.2) as watchdog:\n    watchdog.step_done()\n    hang()"))
    assert code == 1
    assert complaint == (
        "tf-bert: ended after 0.2 seconds without a step (training.rank_timeout_seconds, ten times as long "
        "before the first one): a rank hangs, is stopped or cannot be reached; the same command goes on from the last "
        "complete checkpoint\n"
    )


def test_signs_of_life_and_the_times_before_the_first_step_and_after_the_last():
    process = start(
        "with Watchdog(2.0) as watchdog:\n"
        "    time.sleep(2.5)\n"  # up to twenty seconds: before the first step a graph is compiled
        "    for _ in range(4):\n"
        "        watchdog.step_done()\n"
        "        time.sleep(0.6)\n"
        "    for _ in watchdog.watched(range(4)):\n"
        "        time.sleep(0.6)\n"
        "    watchdog.end()\n"
        "    time.sleep(2.5)\n"
    )
    assert outcome(process) == (0, [], "")
