// Runs a launch: a block at a time, each warp in lock step with a mask of its active lanes.
//
// Divergence: lanes of a warp at different instructions are separate groups. The group furthest
// behind in the text runs first and joins another where it reaches it, which for structured code is
// where compiled branches meet again. A group waits at a shuffle, a vote or __syncwarp for the lanes
// of its mask, and at a barrier for the block.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "forms.h"
#include "memory.h"
#include "warp.h"

namespace {

// Pseudo-random numbers (xorshift64).
class Random {
    u64 state;

  public:
    explicit Random(u64 seed) : state(seed * 0x9E3779B97F4A7C15u + 0xD1B54A32D192ED03u) {
        if (!state) state = 1;
    }
    u64 operator()(u64 below) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return (state >> 8) % below;
    }
};

class Machine {
    const Launch& launch;
    std::vector<char> words;
    std::vector<u32> predicates;
    std::vector<Warp> warps;
    Memory memory;
    Requests requests;
    Random random;
    u32 block = 0, barriers = 0;
    i64 left;  // instructions until the launch is given up

  public:
    explicit Machine(const Launch& l)
        : launch(l), memory(l), requests(l), random(l.seed), left(l.most_instructions) {
        const size_t n = size_t(l.threads) / WARP;
        words.resize(n * size_t(l.register_bytes));
        predicates.resize(n * size_t(l.n_predicates) + 1);
        warps.resize(n);
        for (size_t w = 0; w < n; w++) {
            warps[w].registers = {words.data() + w * size_t(l.register_bytes),
                                  predicates.data() + w * size_t(l.n_predicates)};
            warps[w].number = int(w);
            set_constants(warps[w]);
        }
    }

    void run() {
        const std::string& races = memory.races.told;
        try {
            run_blocks();
        } catch (const Failure&) {
            if (races.empty()) throw;
            const std::string failure = launch.message;  // which a race may have led to
            fail(launch, "%s\n%s", races.c_str(), failure.c_str());
        }
        if (!races.empty()) fail(launch, "%s", races.c_str());
        memory.total();
    }

  private:
    void set_constants(Warp& warp) {
        for (i64 c = 0; c < launch.n_constants; c++) {
            const Constant& constant = launch.constants[c];
            if (constant.bytes == 0)
                warp.registers.predicates[constant.at] = constant.value ? FULL : 0;
            else put_all(warp, constant.at, constant.bytes, constant.value);
        }
        for (int lane = 0; lane < WARP; lane++) {
            const u64 thread = u64(warp.number * WARP + lane);
            if (launch.thread_at >= 0) warp.registers.put(i32(launch.thread_at), 4, lane, thread);
            if (launch.lane_at >= 0) warp.registers.put(i32(launch.lane_at), 4, lane, u64(lane));
        }
    }

    static void put_all(Warp& warp, i32 at, i32 bytes, u64 value) {
        for (int lane = 0; lane < WARP; lane++) warp.registers.put(at, bytes, lane, value);
    }

    // A stride without a common divisor meets every block.
    u64 coprime(u64 n) {
        if (n < 3) return 1;
        for (;;) {
            const u64 stride = 1 + random(n - 1);
            u64 a = n;
            for (u64 b = stride; b;) b = a % std::exchange(a, b);
            if (a == 1) return stride;
        }
    }

    // --- blocks

    void run_blocks() {
        const u64 n = u64(launch.blocks);
        const u64 first = launch.seed ? random(n) : 0, stride = launch.seed ? coprime(n) : 1;
        for (u64 b = 0; b < n; b++) {
            block = u32((first + b * stride) % n);
            run_block();
        }
    }

    void run_block() {
        memory.next_block();
        requests.l1.clear();
        barriers = 0;
        for (Warp& warp : warps) {
            warp.start();
            if (launch.block_at >= 0) put_all(warp, i32(launch.block_at), 4, block);
        }
        do {
            run_warps();
        } while (pass_barrier());
        u64 all = 0;
        for (const Warp& warp : warps) {
            all += warp.issues;
            u64& longest = launch.totals[LONGEST_WARP];
            if (warp.issues > longest) longest = warp.issues;
        }
        if (all > launch.totals[LONGEST_BLOCK]) launch.totals[LONGEST_BLOCK] = all;
    }

    // Runs the warps by turns until none can go on.
    void run_warps() {
        for (bool any = true; any;) {
            any = false;
            const size_t first = launch.seed ? random(warps.size()) : 0;
            for (size_t w = 0; w < warps.size(); w++) {
                Warp& warp = warps[(w + first) % warps.size()];
                if (!warp.ready()) continue;
                any = true;
                run_warp(warp, launch.seed ? i64(1 + random(64)) : INT64_MAX);
            }
        }
    }

    // Lets all go on that wait for the block; whether there was anybody.
    bool pass_barrier() {
        i32 at = -1;
        for (const Warp& warp : warps)
            for (const Group& group : warp.groups) {
                const Instruction& i = launch.code[group.at];
                if (group.state == AT_WARP)
                    fail(launch, "block %u, warp %d, line %d: lanes %#x wait for others of their mask",
                         block, warp.number, i.line, group.mask);
                if (at >= 0 && group.at != at)
                    fail(launch, "block %u, warp %d, line %d: waits for the block, which waits at line %d",
                         block, warp.number, i.line, launch.code[at].line);
                at = group.at;
            }
        if (at < 0) return false;
        for (Warp& warp : warps) {
            for (Group& group : warp.groups) {
                issue(warp, launch.code[at], group.mask);
                group = {at + 1, group.mask, READY};
            }
            warp.join();
        }
        barriers++;
        return true;
    }

    void issue(Warp& warp, const Instruction& i, u32 mask) {
        launch.count(i, ISSUES)++;
        launch.count(i, LANES) += u64(__builtin_popcount(mask));
        warp.issues++;
        if (--left < 0)
            fail(launch, "block %u, warp %d, line %d: still runs after %lld instructions", block,
                 warp.number, i.line, (long long)launch.most_instructions);
    }

    // --- warps

    // Runs a warp until it waits for others or has done about `budget` instructions.
    void run_warp(Warp& warp, i64 budget) {
        while (budget > 0) {
            const int running = warp.next();
            if (running < 0) return;
            budget -= run_group(warp, running);
            if (warp.groups.size() > 1) warp.join();
        }
    }

    // Runs a group up to where it diverges, waits or meets another one; returns its instructions.
    i64 run_group(Warp& warp, int running) {
        const i32 meeting = warp.meeting(running);
        Group& group = warp.groups[size_t(running)];  // until groups come and go
        const u32 mask = group.mask;
        i32 at = group.at;
        for (i64 n = 1;; n++) {
            const Instruction& i = launch.code[at];
            u32 active = mask;
            if (i.guard >= 0) {
                const u32 guard = warp.registers.predicates[i.guard];
                active &= i.negated ? ~guard : guard;
            }
            if (i.kind == PLAIN) {
                issue(warp, i, active);
                if (active) forms[size_t(i.form)].handler(warp.registers, i, active);
            } else if (i.kind <= ATOMIC) {
                issue(warp, i, active);
                if (active) access(warp, i, active);
            } else if (i.kind == BRANCH) {
                issue(warp, i, mask);
                if (active) {
                    branch(warp, running, at, active);
                    return n;
                }
            } else if (i.kind == RETURN) {
                issue(warp, i, active);
                if (active) {
                    leave(warp, running, at, active);
                    return n;
                }
            } else {
                if (active != mask)
                    fail(launch, "block %u, warp %d, line %d: a guard at what lanes do together",
                         block, warp.number, i.line);
                if (i.kind == BARRIER || !all_there(warp, i, mask)) {
                    group.at = at;
                    group.state = i.kind == BARRIER ? AT_BLOCK : AT_WARP;
                    warp.join();
                    wake(warp);
                    return n;
                }
                issue(warp, i, mask);
                together(warp, i, mask);
            }
            if (++at == meeting) {
                group.at = at;
                return n;
            }
        }
    }

    void branch(Warp& warp, int running, i32 at, u32 active) {
        const Instruction& i = launch.code[at];
        Group& group = warp.groups[size_t(running)];
        if (active == group.mask) {
            group.at = i.target;
            return;
        }
        launch.count(i, SPLITS)++;
        group.mask &= ~active;
        group.at = at + 1;
        warp.groups.push_back({i.target, active, READY});
    }

    void leave(Warp& warp, int running, i32 at, u32 active) {
        Group& group = warp.groups[size_t(running)];
        warp.alive &= ~active;
        group.mask &= ~active;
        group.at = at + 1;
        if (!group.mask) warp.groups.erase(warp.groups.begin() + running);
        wake(warp);
    }

    // Whether the lanes are all that this instruction waits for.
    bool all_there(const Warp& warp, const Instruction& i, u32 mask) {
        const u32 named = u32(warp.registers.word(i.d, 4, __builtin_ctz(mask)));
        if (mask & ~named)
            fail(launch, "block %u, warp %d, line %d: lanes that are not in their mask", block,
                 warp.number, i.line);
        return (named & warp.alive) == mask;
    }

    // Lets groups go on that waited for lanes which have come or ended.
    void wake(Warp& warp) {
        for (Group& group : warp.groups)
            if (group.state == AT_WARP && all_there(warp, launch.code[group.at], group.mask))
                group.state = READY;
    }

    // --- memory

    void access(Warp& warp, const Instruction& i, u32 mask) {
        const Registers& registers = warp.registers;
        u64 addresses[WARP];
        int n = 0;  // registers of data
        while (n < 4 && i.data[n] >= 0) n++;
        const u64 bytes = u64(i.size) * u64(i.kind == ATOMIC ? 1 : n);
        const int first = launch.seed && i.kind == ATOMIC ? int(random(WARP)) : 0;
        Moment now = {block, barriers, warp.barriers, 0};
        for (int l = 0; l < WARP; l++) {
            const int lane = (l + first) % WARP;
            if (!has(mask, lane)) continue;
            now.thread = u16(warp.number * WARP + lane);
            addresses[lane] = (i.a >= 0 ? registers.word(i.a, i.c, lane) : 0) + u64(i.offset);
            char* at = memory.at(i, addresses[lane], bytes, now);
            if (i.kind == ATOMIC) {
                update(warp, i, lane, at);
                continue;
            }
            for (int k = 0; k < n; k++, at += i.size) {
                if (i.kind == STORE) store(warp, i, k, lane, at);
                else load(warp, i, k, lane, at);
            }
        }
        requests.count(i, mask, addresses, bytes);
    }

    static void update(Warp& warp, const Instruction& i, int lane, char* at) {
        u64 old = 0;
        memcpy(&old, at, size_t(i.size));
        const u64 given = warp.registers.word(i.data[0], i.size, lane);
        const u64 other = i.data[1] >= 0 ? warp.registers.word(i.data[1], i.size, lane) : 0;
        const u64 value = forms[size_t(i.form)].update(old, given, other);
        memcpy(at, &value, size_t(i.size));
        if (i.to >= 0) warp.registers.put(i.to, i.size, lane, old);
    }

    static void store(Warp& warp, const Instruction& i, int k, int lane, char* at) {
        const u64 value = warp.registers.word(i.data[k], i.wide, lane);
        memcpy(at, &value, size_t(i.size));
    }

    static void load(Warp& warp, const Instruction& i, int k, int lane, const char* at) {
        u64 value = 0;
        memcpy(&value, at, size_t(i.size));
        if (i.flags & IS_SIGNED) {
            const int unused = 64 - 8 * i.size;
            value = u64(i64(value << unused) >> unused);
        }
        warp.registers.put(i.data[k], i.wide, lane, value);
    }

    // --- what lanes do together

    void together(Warp& warp, const Instruction& i, u32 mask) {
        if (i.kind == SHUFFLE) {
            shuffle(warp, i, mask);
        } else if (i.kind == BALLOT) {
            const u32 votes = warp.registers.predicates[i.a] & mask;
            for (int lane = 0; lane < WARP; lane++)
                if (has(mask, lane)) warp.registers.put(i.to, 4, lane, votes);
        } else if (mask == warp.alive) {  // one of some lanes is not taken to order the others
            warp.barriers++;
        }
    }

    void shuffle(Warp& warp, const Instruction& i, u32 mask) {
        Registers& registers = warp.registers;
        u32 result[WARP], valid = 0;
        for (int lane = 0; lane < WARP; lane++) {
            if (!has(mask, lane)) continue;
            const int b = int(registers.word(i.b, 4, lane) & 31);
            const int c = int(registers.word(i.c, 4, lane));
            const int segment = c >> 8 & 31, clamp = c & 31;
            const int most = (lane & segment) | (clamp & ~segment), least = lane & segment;
            int from;
            bool inside;
            switch (i.target) {
                case UP: from = lane - b; inside = from >= most; break;
                case DOWN: from = lane + b; inside = from <= most; break;
                case BUTTERFLY: from = lane ^ b; inside = from <= most; break;
                default: from = least | (b & ~segment); inside = from <= most;
            }
            if (!inside) from = lane;
            if (!has(mask, from))
                fail(launch, "block %u, thread %d, line %d: a shuffle reads lane %d, which is not active",
                     block, warp.number * WARP + lane, i.line, from);
            valid |= u32(inside) << lane;
            result[lane] = u32(registers.word(i.a, 4, from));
        }
        for (int lane = 0; lane < WARP; lane++)
            if (has(mask, lane)) registers.put(i.to, 4, lane, result[lane]);
        registers.put_predicate(i.to2, mask, valid);
    }
};

}  // namespace
