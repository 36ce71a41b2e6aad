// Integers by their widths, and what a handler of an instruction works on.
//
// A register of 16 or 32 bits is 32 words of 4 bytes, one for each lane; one of 64 bits is 32 words
// of 8 bytes; a predicate is a mask of lanes.
#pragma once

#include <cstdint>

typedef int8_t i8;
typedef int16_t i16;
typedef int32_t i32;
typedef int64_t i64;
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

constexpr int WARP = 32;
constexpr u32 FULL = 0xffffffffu;

// The orders of these lists, and the layout of Instruction, are those of ../instructions.py.
enum Kind { PLAIN, LOAD, STORE, ATOMIC, BRANCH, RETURN, BARRIER, SYNCWARP, SHUFFLE, BALLOT };
enum Space { GLOBAL, SHARED, LOCAL };
enum Mode { UP, DOWN, BUTTERFLY, INDEX };
enum Flag { IS_SIGNED = 1, IS_VOLATILE = 2 };

struct Instruction {
    i32 form, kind, guard, negated, to, to2, a, b, c, d;
    i32 size, wide, space, flags, target, line;
    i32 data[4];  // registers that are loaded or stored; unused ones are -1
    i64 offset;
};

// The registers of a warp.
struct Registers {
    char* words;
    u32* predicates;

    u64 word(i32 at, i32 bytes, int lane) const {
        if (bytes == 8) return reinterpret_cast<const u64*>(words + at)[lane];
        return reinterpret_cast<const u32*>(words + at)[lane];
    }
    void put(i32 at, i32 bytes, int lane, u64 value) {
        if (bytes == 8) reinterpret_cast<u64*>(words + at)[lane] = value;
        else reinterpret_cast<u32*>(words + at)[lane] = u32(value);
    }
    void put_predicate(i32 at, u32 mask, u32 value) {
        if (at >= 0) predicates[at] = (predicates[at] & ~mask) | (value & mask);
    }
};

typedef void (*Handler)(Registers&, const Instruction&, u32 mask);
typedef u64 (*Update)(u64 old, u64 value, u64 other);  // of an atomic

inline bool has(u32 mask, int lane) { return mask >> lane & 1; }
