/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * What becomes of a process that gets no more address space. */
#include "support.h"

#include <string.h>
#include <sys/resource.h>

/* No address space for a region of 64 MiB, nor for a table of 8. */
static int map_in_vain(void *arg) {
    const struct rlimit little = {.rlim_cur = 4096, .rlim_max = 4096};
    mr_cache_options o = {.name = "vast",
                          .name_len = 4,
                          .max_entries = 100,
                          .max_value = 100,
                          .max_bytes = 64 * 1024 * 1024};
    mr_cache *c;
    mr_load *l;
    char err[200] = "";

    (void)arg;
    if (setrlimit(RLIMIT_AS, &little) != 0)
        return 1;
    if (mr_cache_open(&o, &c, err, sizeof err) != MR_NOMEM || c != NULL)
        return 2;
    if (strstr(err, "out of memory") == NULL)
        return 3;
    return mr_load_open("vast", 4, &l) == MR_NOMEM && l == NULL ? 0 : 4;
}

static void test_what_cannot_be_mapped_is_no_memory(void **state) {
    (void)state;
    assert_int_equal(wait_child(run_child(map_in_vain, NULL)), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_cannot_be_mapped_is_no_memory),
    };

    return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
