-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What no test reaches, and why that is left so: by file, entries of a reason
-- and the lines that it is for (see justify.lua). `make coverage` fails for a
-- gap that is not here, and for an entry without a gap.

return {
    ["c/coherence.c"] = {
        { "two processes at the same instant: the second sees what the first did",
          by_chance = true,
          "while ((int32_t)(epoch - was) > 0 &&",
          "!atomic_compare_exchange_weak(from, &was, epoch))",
          "if (!swap(&r->listener_owner, owner, self))",
          "if (!swap(&r->listener_owner, self, successor))" },
    },
    ["c/conn.c"] = {
        { "hiredis or calloc without memory, which the tests do not take from it",
          "if (context->err == REDIS_ERR_OOM)",
          "if (!context)",
          "if (!c)\nreturn report(err, err_len, MR_NOMEM, \"no memory\");",
          ": report(err, err_len, MR_NOMEM, \"no memory\");" },
        { "fcntl and poll do not fail on a socket that is open",
          "return flags != -1 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) != -1 &&",
          "if (rc == MR_OK && !prepare_socket(c->fd))",
          "if (poll(&p, 1, ms) < 0 && errno != EINTR)" },
        { "EWOULDBLOCK is EAGAIN on Linux, and what does not block is not interrupted",
          "return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;" },
        { "the reader takes all bytes until it has said what is wrong with them",
          "return rc == MR_OK ? MR_OK : fail(c, rc, mr_reader_error(c->reader));" },
    },
    ["c/core.c"] = {
        { "a kernel without random bytes",
          "if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)",
          "const char *mr_secret(void) { return secret[0] != '\\0' ? secret : NULL; }" },
        { "a process that dies here leaves no counts (the kill matrix has it die)",
          "if (point == mr_fault_at && mr_fault_skip-- == 0)" },
    },
    ["c/find.c"] = {
        { "two processes at the same instant", by_chance = true,
          "if (!atomic_compare_exchange_strong(&s->fresh_until, &was, mark))",
          "if (mr_ref_live(c, ref, &slot))\nreturn MR_OK;",
          "atomic_compare_exchange_strong(&s->fresh_until, &back, was);" },
    },
    ["c/gone.c"] = {
        { "room has been reserved: a guard of the memory behind the buffer",
          "c->gone_filled + sizeof h + bytes > c->gone.capacity)" },
    },
    ["c/load.c"] = {
        { "a mutex that cannot be made, a kernel without random bytes",
          "if (pthread_mutexattr_init(&attr) != 0)",
          "bad = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) ||",
          "for (int i = 0; i < ROWS && !bad; i++)",
          "return bad ? MR_NOMEM : MR_OK;",
          "if (getrandom(t->seed, sizeof t->seed, 0) != (ssize_t)sizeof t->seed ||" },
        { "one hash of 2^64 is 0", "return hash != 0 ? hash : 1;" },
        { "two processes at the same instant: the second looks again", by_chance = true,
          "if (free_one != 0 && atomic_compare_exchange_strong(",
          "} while (label == 0 && free_one != 0); /* lost to another: look again */",
          "while (was < to && !atomic_compare_exchange_weak(&t->high, &was, to))",
          "if (!atomic_load(&t->owners[i].used))" },
    },
    ["c/put.c"] = {
    },
    ["c/region.c"] = {
        { "a mutex that cannot be made, a kernel without random bytes",
          "if (pthread_mutexattr_init(&attr) != 0)",
          "bad = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) ||",
          "pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST) ||",
          "return bad ? MR_NOMEM : MR_OK;",
          "if (getrandom(r->seed, sizeof r->seed, 0) != (ssize_t)sizeof r->seed)",
          "if (make_header(r, g, o) != MR_OK) {" },
        { "a process of another user, when the tests are not root's", by_chance = true,
          "return pid == 0 || (kill(pid, 0) != 0 && errno == ESRCH);" },
        { "two processes at the same instant", by_chance = true,
          "atomic_compare_exchange_strong(&lines[i].pid, &pid, self))" },
    },
    ["c/registry.c"] = {
        { "two threads of a process at the same instant",
          "if (mr_map_line(map) == &map->own) {" },
    },
    ["c/resp.c"] = {
        { "a limit smaller than one node is nobody's",
          "if (fixed > left || extra > left - fixed) {" },
        { "hiredis before 1.0 fails by itself for RESP3", by_chance = true,
          "static void *refuse_resp3(const redisReadTask *task) {",
          "switch (task->type) {", "default:",
          "if (task->type != REDIS_REPLY_ARRAY)",
          "if (task->type == REDIS_REPLY_NIL)" },
        { "4 GiB are refused before, by max_bytes",
          "if (len >= UINT32_MAX) {" },
    },
}
