// The forms of instructions: which handler runs each. ../decoder.py looks them up by name.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "arithmetic.h"

namespace {

struct Form {
    Handler handler;
    Update update;
};
std::vector<Form> forms;
std::unordered_map<std::string, int> form_numbers;

void enter(const std::string& name, Handler handler, Update update = nullptr) {
    form_numbers.emplace(name, static_cast<int>(forms.size()));
    forms.push_back({handler, update});
}

template <class T>
void enter_bits(const std::string& t) {
    enter("mov." + t, unary<T, Same>);
    enter("selp." + t, select<T>);
    enter("and." + t, binary<T, And>);
    enter("or." + t, binary<T, Or>);
    enter("xor." + t, binary<T, Xor>);
    enter("not." + t, unary<T, Not>);
    enter("shl." + t, shift<T, Left>);
    enter("setp.eq." + t, compare<T, Equal>);
    enter("setp.ne." + t, compare<T, Unequal>);
    enter("atom.exch." + t, nullptr, exchanged);
    enter("atom.cas." + t, nullptr, swapped);
    if constexpr (sizeof(T) >= 4) {
        enter("popc." + t, population<T>);
        enter("clz." + t, leading_zeros<T>);
        enter("bfi." + t, insert_bits<T>);
        enter("atom.and." + t, nullptr, updated<T, And>);
        enter("atom.or." + t, nullptr, updated<T, Or>);
    }
}
template <class T>
void enter_numbers(const std::string& t) {
    enter("add." + t, binary<T, Add>);
    enter("sub." + t, binary<T, Subtract>);
    enter("div." + t, binary<T, Divide>);
    enter("min." + t, binary<T, Least>);
    enter("max." + t, binary<T, Most>);
    enter("neg." + t, unary<T, Negative>);
    enter("abs." + t, unary<T, Absolute>);
    enter("setp.lt." + t, compare<T, Below>);
    enter("setp.le." + t, compare<T, UpTo>);
    enter("setp.gt." + t, compare<T, Above>);
    enter("setp.ge." + t, compare<T, From>);
    enter("atom.add." + t, nullptr, updated<T, Add>);
    enter("atom.min." + t, nullptr, updated<T, Least>);
    enter("atom.max." + t, nullptr, updated<T, Most>);
}
template <class T>
void enter_integer(const std::string& t) {
    enter_bits<T>(t);
    enter_numbers<T>(t);
    enter("rem." + t, binary<T, Remainder>);
    enter("shr." + t, shift<T, Right>);
    enter("mul.lo." + t, binary<T, Multiply>);
    enter("mul.hi." + t, binary<T, MultiplyHigh>);
    enter("mad.lo." + t, ternary<T, MultiplyAdd>);
    if constexpr (sizeof(T) >= 4) enter("bfe." + t, extract_bits<T>);
    if constexpr (sizeof(T) < 8) enter("mul.wide." + t, multiply_wide<T>);
    if constexpr (sizeof(T) == 4) enter("mad.wide." + t, multiply_add_wide<T>);
}
template <class T>
void enter_float(const std::string& t) {
    enter("mov." + t, unary<Slot<T>, Same>);
    enter("selp." + t, select<Slot<T>>);
    enter_numbers<T>(t);
    enter("mul." + t, binary<T, Multiply>);
    enter("fma." + t, ternary<T, Fused>);
    enter("rcp." + t, unary<T, Reciprocal>);
    enter("sqrt." + t, unary<T, Root>);
    enter("setp.eq." + t, compare<T, Equal>);
    enter("setp.ne." + t, compare<T, OrderedUnequal>);
    enter("setp.equ." + t, compare<T, NotUnequal>);
    enter("setp.neu." + t, compare<T, Unequal>);
    enter("setp.ltu." + t, compare<T, NotFrom>);
    enter("setp.leu." + t, compare<T, NotAbove>);
    enter("setp.gtu." + t, compare<T, NotUpTo>);
    enter("setp.geu." + t, compare<T, NotBelow>);
    enter("setp.num." + t, compare<T, Numbers>);
    enter("setp.nan." + t, compare<T, AnyNan>);
}
template <class D, class S>
void enter_conversion(const std::string& d, const std::string& s) {
    const std::string types = "." + d + "." + s;
    if constexpr (std::is_integral_v<S>) {
        enter("cvt" + types, convert<D, S, Same>);
        if (std::is_floating_point_v<D>) enter("cvt.rn" + types, convert<D, S, Same>);
        // from the low bits of a wider register
        else if (sizeof(S) < 8) enter("cvt.low" + types, convert<D, S, Same, u64>);
    } else if constexpr (std::is_integral_v<D>) {
        enter("cvt.rni" + types, convert<D, S, ToInteger<D, Nearest>>);
        enter("cvt.rzi" + types, convert<D, S, ToInteger<D, Truncate>>);
        enter("cvt.rmi" + types, convert<D, S, ToInteger<D, Floor>>);
        enter("cvt.rpi" + types, convert<D, S, ToInteger<D, Ceiling>>);
    } else {
        enter(sizeof(D) < sizeof(S) ? "cvt.rn" + types : "cvt" + types, convert<D, S, Same>);
        if constexpr (sizeof(D) == sizeof(S)) {
            enter("cvt.rni" + types, convert<D, S, Nearest>);
            enter("cvt.rzi" + types, convert<D, S, Truncate>);
            enter("cvt.rmi" + types, convert<D, S, Floor>);
            enter("cvt.rpi" + types, convert<D, S, Ceiling>);
        }
    }
}
template <class D>
void enter_conversions(const std::string& d) {
    enter_conversion<D, u8>(d, "u8");
    enter_conversion<D, i8>(d, "s8");
    enter_conversion<D, u16>(d, "u16");
    enter_conversion<D, i16>(d, "s16");
    enter_conversion<D, u32>(d, "u32");
    enter_conversion<D, i32>(d, "s32");
    enter_conversion<D, u64>(d, "u64");
    enter_conversion<D, i64>(d, "s64");
    enter_conversion<D, float>(d, "f32");
    enter_conversion<D, double>(d, "f64");
}

void fill_forms() {
    enter("none", nullptr);  // of loads, stores, branches and what waits
    enter_bits<u16>("b16");
    enter_bits<u32>("b32");
    enter_bits<u64>("b64");
    enter_integer<u16>("u16");
    enter_integer<i16>("s16");
    enter_integer<u32>("u32");
    enter_integer<i32>("s32");
    enter_integer<u64>("u64");
    enter_integer<i64>("s64");
    enter_float<float>("f32");
    enter_float<double>("f64");
    enter_conversions<u16>("u16");
    enter_conversions<i16>("s16");
    enter_conversions<u32>("u32");
    enter_conversions<i32>("s32");
    enter_conversions<u64>("u64");
    enter_conversions<i64>("s64");
    enter_conversions<float>("f32");
    enter_conversions<double>("f64");
    enter("and.pred", logic<pred_and>);
    enter("or.pred", logic<pred_or>);
    enter("xor.pred", logic<pred_xor>);
    enter("not.pred", logic<pred_not>);
    enter("mov.pred", logic<pred_mov>);
    enter("split.b64", split_words);
    enter("join.b64", join_words);
}

}  // namespace
