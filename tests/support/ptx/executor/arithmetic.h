// What instructions compute, lane by lane.
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>

#include "types.h"

namespace {

template <class T>
using Slot = std::conditional_t<sizeof(T) == 8, u64, u32>;

template <class T>
inline T get(const Registers& x, i32 at, int lane) {
    const Slot<T> word = reinterpret_cast<const Slot<T>*>(x.words + at)[lane];
    if constexpr (std::is_floating_point_v<T>) return __builtin_bit_cast(T, word);
    else return static_cast<T>(word);
}
template <class T>
inline Slot<T> word_of(T value) {
    if constexpr (std::is_floating_point_v<T>) return __builtin_bit_cast(Slot<T>, value);
    else return static_cast<Slot<T>>(value);
}
template <class T, class F>
inline void each(Registers& x, const Instruction& i, u32 mask, F f) {
    Slot<T>* to = reinterpret_cast<Slot<T>*>(x.words + i.to);
    if (mask == FULL) {
#pragma GCC ivdep
        for (int lane = 0; lane < WARP; lane++) to[lane] = word_of<T>(f(lane));
    } else {
        for (int lane = 0; lane < WARP; lane++)
            if (has(mask, lane)) to[lane] = word_of<T>(f(lane));
    }
}

template <class T, class F>
void unary(Registers& x, const Instruction& i, u32 mask) {
    each<T>(x, i, mask, [&](int l) { return F()(get<T>(x, i.a, l)); });
}
template <class T, class F>
void binary(Registers& x, const Instruction& i, u32 mask) {
    each<T>(x, i, mask, [&](int l) { return F()(get<T>(x, i.a, l), get<T>(x, i.b, l)); });
}
template <class T, class F>
void ternary(Registers& x, const Instruction& i, u32 mask) {
    each<T>(x, i, mask,
            [&](int l) { return F()(get<T>(x, i.a, l), get<T>(x, i.b, l), get<T>(x, i.c, l)); });
}
template <class T, class F>
void shift(Registers& x, const Instruction& i, u32 mask) {
    each<T>(x, i, mask, [&](int l) { return F()(get<T>(x, i.a, l), get<u32>(x, i.b, l)); });
}
template <class T, class F>
void compare(Registers& x, const Instruction& i, u32 mask) {
    u32 found = 0;
    for (int l = 0; l < WARP; l++) found |= u32(F()(get<T>(x, i.a, l), get<T>(x, i.b, l))) << l;
    x.put_predicate(i.to, mask, found);
    x.put_predicate(i.to2, mask, ~found);
}
template <class T>
void select(Registers& x, const Instruction& i, u32 mask) {
    const u32 first = x.predicates[i.c];
    each<T>(x, i, mask,
            [&](int l) { return first >> l & 1 ? get<T>(x, i.a, l) : get<T>(x, i.b, l); });
}
template <class D, class S, class F, class Register = S>
void convert(Registers& x, const Instruction& i, u32 mask) {
    each<D>(x, i, mask,
            [&](int l) { return static_cast<D>(F()(static_cast<S>(get<Register>(x, i.a, l)))); });
}
template <class T>
void multiply_wide(Registers& x, const Instruction& i, u32 mask) {
    using D = std::conditional_t<sizeof(T) == 4, std::conditional_t<std::is_signed_v<T>, i64, u64>,
                                 std::conditional_t<std::is_signed_v<T>, i32, u32>>;
    each<D>(x, i, mask, [&](int l) { return D(get<T>(x, i.a, l)) * D(get<T>(x, i.b, l)); });
}
template <class T>
void multiply_add_wide(Registers& x, const Instruction& i, u32 mask) {
    using D = std::conditional_t<std::is_signed_v<T>, i64, u64>;
    each<D>(x, i, mask, [&](int l) {
        return D(get<T>(x, i.a, l)) * D(get<T>(x, i.b, l)) + get<D>(x, i.c, l);
    });
}

#define OPERATION(NAME, ...)                                                                       \
    struct NAME {                                                                                  \
        template <class T>                                                                         \
        T operator()(__VA_ARGS__) const
#define END }
OPERATION(Same, T a) { return a; } END;
OPERATION(Not, T a) { return ~a; } END;
OPERATION(Negative, T a) { return -a; } END;
OPERATION(Absolute, T a) {
    if constexpr (std::is_floating_point_v<T>) return std::fabs(a);
    else return a < 0 ? -a : a;
} END;
OPERATION(Reciprocal, T a) { return 1 / a; } END;
OPERATION(Root, T a) { return std::sqrt(a); } END;
OPERATION(Add, T a, T b) { return a + b; } END;
OPERATION(Subtract, T a, T b) { return a - b; } END;
OPERATION(Multiply, T a, T b) {
    if constexpr (sizeof(T) == 2) return static_cast<T>(i32(a) * i32(b));
    else return a * b;
} END;
OPERATION(MultiplyHigh, T a, T b) {
    using W = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
    return static_cast<T>(W(a) * W(b) >> 8 * sizeof(T));
} END;
OPERATION(MultiplyAdd, T a, T b, T c) { return a * b + c; } END;
OPERATION(Fused, T a, T b, T c) { return std::fma(a, b, c); } END;
OPERATION(Divide, T a, T b) {
    if constexpr (std::is_integral_v<T>) {
        if (b == 0) return ~T(0);  // any value, and no trap
        if (std::is_signed_v<T> && b == T(-1)) return -a;
    }
    return a / b;
} END;
OPERATION(Remainder, T a, T b) {
    return b == 0 ? a : std::is_signed_v<T> && b == T(-1) ? T(0) : a % b;
} END;
OPERATION(Least, T a, T b) {
    if constexpr (std::is_floating_point_v<T>)
        if (a != a || b != b || a == b) return a != a ? b : b != b || std::signbit(a) ? a : b;
    return b < a ? b : a;
} END;
OPERATION(Most, T a, T b) {
    if constexpr (std::is_floating_point_v<T>)
        if (a != a || b != b || a == b) return a != a ? b : b != b || !std::signbit(a) ? a : b;
    return a < b ? b : a;
} END;
OPERATION(And, T a, T b) { return a & b; } END;
OPERATION(Or, T a, T b) { return a | b; } END;
OPERATION(Xor, T a, T b) { return a ^ b; } END;
OPERATION(Left, T a, u32 b) { return b < 8 * sizeof(T) ? static_cast<T>(a << b) : T(0); } END;
OPERATION(Right, T a, u32 b) {
    return b < 8 * sizeof(T) ? static_cast<T>(a >> b) : std::is_signed_v<T> && a < 0 ? T(-1) : T(0);
} END;
OPERATION(Floor, T a) { return std::floor(a); } END;
OPERATION(Ceiling, T a) { return std::ceil(a); } END;
OPERATION(Truncate, T a) { return std::trunc(a); } END;
OPERATION(Nearest, T a) { return std::nearbyint(a); } END;
#undef OPERATION
#undef END

#define COMPARISON(NAME, EXPRESSION)                                                               \
    struct NAME {                                                                                  \
        template <class T>                                                                         \
        bool operator()(T a, T b) const {                                                          \
            return EXPRESSION;                                                                     \
        }                                                                                          \
    };
COMPARISON(Equal, a == b)
COMPARISON(Unequal, a != b)
COMPARISON(Below, a < b)
COMPARISON(UpTo, a <= b)
COMPARISON(Above, a > b)
COMPARISON(From, a >= b)
COMPARISON(OrderedUnequal, a < b || a > b)
COMPARISON(NotUnequal, !(a < b || a > b))
COMPARISON(NotFrom, !(a >= b))
COMPARISON(NotAbove, !(a > b))
COMPARISON(NotUpTo, !(a <= b))
COMPARISON(NotBelow, !(a < b))
COMPARISON(Numbers, a == a && b == b)
COMPARISON(AnyNan, a != a || b != b)
#undef COMPARISON

// Saturates; NaN as the PTX manual says.
template <class D, class Round>
struct ToInteger {
    template <class S>
    D operator()(S a) const {
        const S bound = std::ldexp(S(1), 8 * sizeof(D) - std::is_signed_v<D>);
        const D low = std::is_signed_v<D> ? D(D(1) << (8 * sizeof(D) - 1)) : D(0);
        if (a != a) return sizeof(S) == 8 || sizeof(D) == 8 ? D(D(1) << (8 * sizeof(D) - 1)) : D(0);
        a = Round()(a);
        return a >= bound ? static_cast<D>(~low) : a < S(low) ? low : static_cast<D>(a);
    }
};

template <class T>
void population(Registers& x, const Instruction& i, u32 mask) {
    each<u32>(x, i, mask, [&](int l) { return u32(__builtin_popcountll(get<T>(x, i.a, l))); });
}
template <class T>
void leading_zeros(Registers& x, const Instruction& i, u32 mask) {
    each<u32>(x, i, mask, [&](int l) {
        const u64 a = get<T>(x, i.a, l);
        return a ? u32(__builtin_clzll(a)) - (64 - 8 * u32(sizeof(T))) : 8 * u32(sizeof(T));
    });
}
template <class T>
void insert_bits(Registers& x, const Instruction& i, u32 mask) {
    each<T>(x, i, mask, [&](int l) {
        const u32 at = get<u32>(x, i.c, l) & 0xff, n = get<u32>(x, i.d, l) & 0xff;
        if (at >= 8 * sizeof(T) || n == 0) return get<T>(x, i.b, l);
        const T ones = (n >= 8 * sizeof(T) ? ~T(0) : (T(1) << n) - 1) << at;
        return static_cast<T>((get<T>(x, i.b, l) & ~ones) | (get<T>(x, i.a, l) << at & ones));
    });
}
template <class T>
void extract_bits(Registers& x, const Instruction& i, u32 mask) {
    constexpr u32 bits = 8 * sizeof(T);
    each<T>(x, i, mask, [&](int l) {
        const u32 at = get<u32>(x, i.b, l) & 0xff, n = get<u32>(x, i.c, l) & 0xff;
        const T a = get<T>(x, i.a, l);
        T found = 0;
        for (u32 k = 0; k < bits; k++) {
            const u32 bit = std::is_signed_v<T> && k >= n ? at + n - 1 : at + k;
            const bool inside = k < n || std::is_signed_v<T>;
            if (n && inside) found |= T(a >> (bit < bits ? bit : bits - 1) & 1) << k;
        }
        return found;
    });
}
void split_words(Registers& x, const Instruction& i, u32 mask) {
    const u64* from = reinterpret_cast<const u64*>(x.words + i.a);
    for (int l = 0; l < WARP; l++)
        if (has(mask, l)) {
            reinterpret_cast<u32*>(x.words + i.data[0])[l] = u32(from[l]);
            reinterpret_cast<u32*>(x.words + i.data[1])[l] = u32(from[l] >> 32);
        }
}
void join_words(Registers& x, const Instruction& i, u32 mask) {
    each<u64>(x, i, mask, [&](int l) {
        return get<u32>(x, i.data[0], l) | u64(get<u32>(x, i.data[1], l)) << 32;
    });
}
template <int (*f)(int, int)>
void logic(Registers& x, const Instruction& i, u32 mask) {
    const u32 b = i.b >= 0 ? x.predicates[i.b] : 0;
    x.put_predicate(i.to, mask, u32(f(int(x.predicates[i.a]), int(b))));
}
int pred_and(int a, int b) { return a & b; }
int pred_or(int a, int b) { return a | b; }
int pred_xor(int a, int b) { return a ^ b; }
int pred_not(int a, int) { return ~a; }
int pred_mov(int a, int) { return a; }

template <class T, class F>
u64 updated(u64 old, u64 value, u64) {
    T a, b;
    memcpy(&a, &old, sizeof a);
    memcpy(&b, &value, sizeof b);
    a = F()(a, b);
    u64 result = 0;
    memcpy(&result, &a, sizeof a);
    return result;
}
u64 exchanged(u64, u64 value, u64) { return value; }
u64 swapped(u64 old, u64 expected, u64 value) { return old == expected ? value : old; }

}  // namespace
