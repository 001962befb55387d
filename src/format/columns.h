// SPDX-License-Identifier: Apache-2.0
// Rows of one width as columns of differences, which compress better: the fields of a sorted table
// rise slowly or stay the same. (The idea is that of the shuffle filter of HDF5 and Blosc, with the
// difference to the row above in place of each byte.) Pure.
#ifndef CKPTFS_FORMAT_COLUMNS_H
#define CKPTFS_FORMAT_COLUMNS_H

#include <stddef.h>
#include <stdint.h>

// `rows` and `columns` have `count` times `width` bytes and do not overlap. Byte i of column c is
// byte c of row i minus byte c of row i - 1, modulo 256; the row above the first is zeros.
void columns_split(const uint8_t *rows, size_t count, size_t width, uint8_t *columns);
void columns_join(const uint8_t *columns, size_t count, size_t width, uint8_t *rows);

#endif
