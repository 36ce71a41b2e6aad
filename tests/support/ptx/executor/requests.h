// Counts what a warp's request costs: sectors, misses of L1, wavefronts, collisions.
#pragma once

#include <vector>

#include "launch.h"

namespace {

constexpr u64 SECTOR = 32;

// The L1 cache of a block: lines of 128 bytes in sets of four, of which the least recently used
// goes first; sectors are filled one by one.
class L1 {
    struct Line {
        u64 tag;
        u32 sectors;
        u64 used;
    };
    std::vector<Line> lines;
    u64 clock = 0;

  public:
    explicit L1(i64 bytes) : lines(size_t(bytes) / 512 * 4) {}

    void clear() {
        for (Line& line : lines) line = {0, 0, 0};
    }
    // Whether a sector is there; it is afterwards.
    bool hit(u64 sector) {
        if (lines.empty()) return false;
        const u64 tag = sector / 4 + 1;
        const u32 bit = 1u << sector % 4;
        Line* set = &lines[tag * 0x9E3779B97F4A7C15u % (lines.size() / 4) * 4];
        Line* oldest = set;
        clock++;
        for (Line* line = set; line < set + 4; line++) {
            if (line->tag == tag) {
                line->used = clock;
                const bool there = line->sectors & bit;
                line->sectors |= bit;
                return there;
            }
            if (line->used < oldest->used) oldest = line;
        }
        *oldest = {tag, bit, clock};
        return false;
    }
};

class Requests {
    const Launch& launch;

  public:
    L1 l1;

    explicit Requests(const Launch& l) : launch(l), l1(l.l1_bytes) {}

    void count(const Instruction& i, u32 mask, const u64* addresses, u64 bytes) {
        if (i.space == LOCAL) {
            local(i, mask, bytes);
        } else if (i.space == GLOBAL) {
            sectors(i, mask, addresses, bytes);
            if (i.kind == ATOMIC) collisions(i, mask, addresses);
        } else if (i.kind == ATOMIC) {
            collisions(i, mask, addresses);
        } else {
            wavefronts(i, mask, addresses, bytes);
        }
    }

  private:
    // Words of one name lie side by side for the lanes of a warp.
    void local(const Instruction& i, u32 mask, u64 bytes) {
        const u64 n = (u64(__builtin_popcount(mask)) * bytes + SECTOR - 1) / SECTOR;
        launch.count(i, SECTORS) += n;
        launch.count(i, LEAST) += n;
    }

    void sectors(const Instruction& i, u32 mask, const u64* addresses, u64 bytes) {
        u64 touched[WARP], distinct[WARP];  // aligned, so that no access touches two sectors
        int n = 0, n_distinct = 0;
        for (int lane = 0; lane < WARP; lane++) {
            if (!has(mask, lane)) continue;
            const u64 address = addresses[lane], sector = address / SECTOR;
            int k = n - 1;
            while (k >= 0 && touched[k] != sector) k--;
            if (k < 0) touched[n++] = sector;
            k = n_distinct - 1;
            while (k >= 0 && distinct[k] != address) k--;
            if (k < 0) distinct[n_distinct++] = address;
        }
        launch.count(i, SECTORS) += u64(n);
        launch.count(i, LEAST) += (u64(n_distinct) * bytes + SECTOR - 1) / SECTOR;
        const bool cached = i.kind == LOAD && !(i.flags & IS_VOLATILE);
        for (int k = 0; k < n; k++) launch.count(i, MISSES) += !(cached && l1.hit(touched[k]));
    }

    void collisions(const Instruction& i, u32 mask, const u64* addresses) {
        int most = 0;
        for (int lane = 0; lane < WARP; lane++) {
            if (!has(mask, lane)) continue;
            int same = 0;
            for (int other = 0; other < WARP; other++)
                same += has(mask, other) && addresses[other] == addresses[lane];
            most = same > most ? same : most;
        }
        launch.count(i, COLLISIONS) += u64(most);
    }

    // 32 banks of 4 bytes. Words of 8 bytes are served by half warps, of 16 bytes by quarters.
    void wavefronts(const Instruction& i, u32 mask, const u64* addresses, u64 bytes) {
        const int lanes = bytes <= 4 ? WARP : bytes == 8 ? WARP / 2 : WARP / 4;
        for (int first = 0; first < WARP; first += lanes) {
            u64 words[32][32];  // by bank
            int n[32] = {}, most = 0;
            for (int lane = first; lane < first + lanes; lane++) {
                if (!has(mask, lane)) continue;
                for (u64 w = 0; w < (bytes + 3) / 4; w++) {
                    const u64 word = addresses[lane] / 4 + w;
                    const int bank = int(word % 32);
                    int k = n[bank] - 1;
                    while (k >= 0 && words[bank][k] != word) k--;
                    if (k < 0) words[bank][n[bank]++] = word;
                    most = n[bank] > most ? n[bank] : most;
                }
            }
            launch.count(i, WAVEFRONTS) += u64(most);
            launch.count(i, LEAST) += most > 0;
        }
    }
};

}  // namespace
