"""The rounds of crash-vm.sh: boots the machine, cuts its power, boots it again, and counts what was lost."""
import argparse
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
sys.dont_write_bytecode = True
from drive import Drive  # noqa: E402

WRITERS = 3
PATIENCE = 120  # seconds for a boot, on a machine that is busy with other things


class Machine:
    """A drive, and the computer that runs on it from time to time."""

    def __init__(self, options, name, fsync, seed):
        self.options, self.fsync, self.seed = options, fsync, seed
        base = os.path.join(options.work, name)
        image, self.socket, self.console = base + ".img", base + ".sock", base + ".console"
        with open(image, "wb") as file:
            file.truncate(512 << 20)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-F", image], check=True)
        self.drive = Drive(self.socket, image, seed)
        # What the clients have reported: requests that were answered, and the highest counter that was read.
        self.acked, self.read = [0] * WRITERS, [0] * WRITERS
        # How many syncs the server is to have under way at once; 0: as it thinks best.
        self.at_once = 0

    def boot(self):
        def numbers(values):
            return ",".join(map(str, values))

        words = {
            "fsync": self.fsync,
            "engine": self.options.engine,
            "cores": self.options.cores,
            "at_once": self.at_once,
            "seed": self.seed,
            "acked": numbers(self.acked),
            "read": numbers(self.read),
        }
        line = "console=ttyS0 panic=-1 quiet " + " ".join(f"kv.{name}={value}" for name, value in words.items())
        command = ["qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-cpu", "max,-cx16", "-smp", "2", "-m", "512"]
        command += ["-kernel", self.options.kernel, "-initrd", os.path.join(self.options.work, "initrd"), "-append", line]
        command += ["-drive", f"file=nbd:unix:{self.socket},if=none,id=n0,format=raw", "-device", "nvme,serial=x1,drive=n0"]
        command += ["-nodefaults", "-nographic", "-serial", "stdio", "-no-reboot"]
        out = open(self.console, "wb")
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)

    def lines(self):
        with open(self.console, "rb") as file:
            # The last line may not be complete.
            return [line.decode(errors="replace").strip().split(" ") for line in file.read().split(b"\n")[:-1]]

    def life(self, load_s):
        """One life: compares, works for a random time if there is to be any, and dies. What was wrong, or None."""
        qemu = self.boot()
        began = time.monotonic()
        worked_from, wrong = None, None
        try:
            while True:
                lines = self.lines()
                kinds = {line[0] for line in lines}
                lost = [" ".join(line) for line in lines if line[0] in ("LOST", "FAIL:")]
                if lost:
                    wrong = "; ".join(lost)
                    break
                if "CHECKED" in kinds and load_s is None:
                    break
                if "A" in kinds and worked_from is None:
                    worked_from = time.monotonic()
                if worked_from is not None and time.monotonic() >= worked_from + load_s:
                    break
                if qemu.poll() is not None or time.monotonic() > began + PATIENCE:
                    wrong = "it did not come to work: " + " / ".join(" ".join(line) for line in lines[-10:])
                    break
                time.sleep(0.01)
        finally:
            qemu.kill()
            qemu.wait()
            self.drive.is_off.wait(PATIENCE)
        for line in self.lines():
            if len(line) == 3 and line[0] in ("A", "R") and line[1].isdigit() and line[2].isdigit():
                of = self.acked if line[0] == "A" else self.read
                of[int(line[1])] = max(of[int(line[1])], int(line[2]))
        return wrong


def rounds(options, seed):
    """Lives on one drive, each of which looks for what the one before has promised. The count of those that lost."""
    chance = random.Random(seed)
    machine = Machine(options, "durable", "always", seed)
    failed = 0
    for index in range(options.rounds + 1):
        before = sum(machine.acked)
        began = time.monotonic()
        last = index == options.rounds
        machine.at_once = (0, 4, 2)[index % 3]
        wrong = machine.life(None if last else chance.uniform(0.1, 4.0))
        drive = machine.drive
        if index > 0:
            verdict = f"FAIL {wrong}" if wrong else "PASS"
            print(f"round {index}: {verdict}: {before} acknowledged requests looked for after the cut", flush=True)
        elif wrong:
            print(f"FAIL: the first boot: {wrong}", flush=True)
        if wrong:
            failed += 1
            break
        if not last:
            syncs = machine.at_once or "as many as are good"
            print(
                f"  cut: {sum(machine.acked) - before} requests acknowledged in this life, {drive.flushes} flushes so far, "
                f"{syncs} at once, of the drive's cache {drive.lost} blocks lost and {drive.kept} kept, {time.monotonic() - began:.1f} s",
                flush=True,
            )
    machine.drive.close()
    return failed


def control(options, seed):
    """Lives without syncs, on fresh drives. The count of those that lost."""
    lost = 0
    for index in range(options.control):
        machine = Machine(options, f"control{index}", "no", seed + index)
        wrong = machine.life(3.0) or machine.life(None)
        machine.drive.close()
        print(f"control {index + 1}, appendfsync no: {wrong or 'nothing lost'} ({sum(machine.acked)} acknowledged)", flush=True)
        lost += bool(wrong) and wrong.startswith("LOST")
    return lost


def main():
    parser = argparse.ArgumentParser()
    for name in ("work", "kernel", "engine", "cores"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("rounds", "control"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    seed = int(os.environ.get("OMNIRING_CRASH_SEED", time.time_ns() % 10**9))
    print(f"OMNIRING_CRASH_SEED={seed}: kernel {os.path.basename(options.kernel)}, {options.engine}, {options.cores} cores")
    failed = rounds(options, seed)
    lost = control(options, seed)
    print(f"{options.rounds} rounds, {failed} of them lost something; {lost} of {options.control} control rounds did")
    sys.exit(1 if failed or (options.control and not lost) else 0)


main()
