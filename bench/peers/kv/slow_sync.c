/* Makes each fsync and fdatasync of a program take longer, for measurements: preloaded into servers that make plain
   system calls, where they stand for a slow disk. SLOW_SYNC_US says by how many microseconds. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

static void delay(void) {
    const char *text = getenv("SLOW_SYNC_US");
    long us = text ? atol(text) : 0;
    struct timespec left = {us / 1000000, us % 1000000 * 1000};
    /* Of the calling thread: timers may be late by 50 us otherwise. */
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    while (us > 0 && nanosleep(&left, &left) != 0) {
    }
}

static int call(const char *name, int fd) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = next(fd);
    if (result == 0) {
        delay();
    }
    return result;
}

int fdatasync(int fd) { return call("fdatasync", fd); }

int fsync(int fd) { return call("fsync", fd); }
