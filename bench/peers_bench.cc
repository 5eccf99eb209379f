// bench_peers: what a hit costs with Kvasir and with what one would take instead, beside the plain
// read and memcpy of the same bytes.
//
// All hold the same 512 MiB, a prompt of 4,096 tokens of Llama-3-8B (peer.h), and all serve at the
// same time. In each round each row is measured once with each of them, in changing order, the
// caches filled with other bytes before. A row's value is the median over the rounds; its ratio is
// our time / theirs, with the interval of the ratios within rounds. One round before them warms up.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "bench/kernel_data.h"
#include "bench/peer.h"
#include "bench/peer_driver.h"
#include "bench/peer_join.h"
#include "bench/ratio_plot.h"
#include "bench/report.h"
#include "bench/statistics.h"
#include "index/block_index.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace kvasir::bench {
namespace {

constexpr uint32_t kLookCalls = 400;
constexpr uint64_t kFlushBytes = 96 * kMiB;  // three times the last cache of this kind of machine
constexpr uint32_t kIndexBlocks = 100'000;
const std::string kOurs = "kvasir", kInPlace = kRedisInPlace;

struct Options {
  std::string json = "build/bench/peers.json";
  uint32_t rounds = 9;
  bool huge_pages = false;
  std::vector<std::string> others;  // NAME=COMMAND of a driver
  std::string join, at;             // of a process that attaches
};

// Bytes that differ from word to word.
PlainMemory MakeData(size_t bytes, uint64_t seed) {
  PlainMemory memory = MakePlainMemory(bytes);
  for (size_t at = 0; at < bytes; at += 8) {
    const uint64_t word = (at + seed) * 0x9e3779b97f4a7c15;
    std::memcpy(memory.get() + at, &word, 8);
  }
  return memory;
}

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options) {}

  absl::Status Run() {
    const PlainMemory prefix = MakeData(kPrefixBytes, 1);
    const PlainMemory small = MakeData(kSmallBlocks * kSmallBytes, 2);
    data_ = {prefix.get(), small.get(), options_.huge_pages};
    for (const PeerKind& kind : kPeerKinds) {
      if (kind.start == nullptr) continue;
      fmt::print(stderr, "starting {}\n", kind.name);
      KVASIR_ASSIGN_OR_RETURN(peers_[kind.name], kind.start(data_));
    }
    KVASIR_ASSIGN_OR_RETURN(peers_[kInPlace], JoinRedisInPlace(peers_["redis"]->address(), data_));
    KVASIR_RETURN_IF_ERROR(StartOthers());
    const std::vector<std::pair<std::string, Measure>> measures = {
        {"prefix fetch", [this](Peer& peer, const auto&) { return FetchPrefix(peer); }},
        {"prefix attach", [this](Peer& peer, const auto& name) { return Attach(peer, name); }},
        {"layer fetch", [this](Peer& peer, const auto&) { return FetchLayer(peer); }},
        {"block fetch", [this](Peer& peer, const auto&) { return FetchSmall(peer); }},
        {"store", [](Peer& peer, const auto&) { return Store(peer, true); }},
        {"store, rows copied in", [](Peer& peer, const auto&) { return Store(peer, false); }},
        {"block lookup", [this](Peer& peer, const auto&) { return Look(peer); }},
    };
    std::vector<std::string> names;
    for (const auto& [name, peer] : peers_) names.push_back(name);
    for (const auto& [name, other] : others_) names.push_back(name);
    for (uint32_t round = 0; round <= options_.rounds; ++round) {
      fmt::print(stderr, "round {} of {}\n", round, options_.rounds);
      round_ = round;
      for (const auto& [row, measure] : measures) {
        std::shuffle(names.begin(), names.end(), random_);
        for (const std::string& name : names) {
          flushed_ += ReadOnce(flush_.get(), kFlushBytes);
          if (Interrupted()) return MakeError(absl::StatusCode::kCancelled, "interrupted");
          const auto peer = peers_.find(name);
          const absl::StatusOr<double> took =
              peer == peers_.end() ? Other(name, row) : measure(*peer->second, name);
          if (peer != peers_.end()) KVASIR_RETURN_IF_ERROR(peer->second->Between());
          if (took.status().code() == absl::StatusCode::kUnimplemented) continue;
          KVASIR_RETURN_IF_ERROR(took.status());
          if (round > 0) measured_[row][name].push_back(*took);  // round 0 warms up
        }
      }
    }
    return AddRows();
  }

 private:
  using Measure = std::function<absl::StatusOr<double>(Peer&, const std::string&)>;

  absl::Status StartOthers() {
    for (const std::string& other : options_.others) {
      const size_t end = other.find('=');
      const std::string name = other.substr(0, end);
      if (end == std::string::npos || peers_.count(name) > 0) {
        return InvalidArgument("--other wants NAME=COMMAND of a new name: {}", other);
      }
      fmt::print(stderr, "starting {}\n", name);
      absl::StatusOr<std::unique_ptr<DriverPeer>> started =
          DriverPeer::Start(other.substr(end + 1), data_);
      if (Interrupted()) return MakeError(absl::StatusCode::kCancelled, "interrupted");
      if (started.ok()) {
        fmt::print(stderr, "{}: {}\n", name, (*started)->about());
        others_[name] = *std::move(started);
      } else {
        LeaveOut(name, started.status());
      }
    }
    return absl::OkStatus();
  }

  // What goes wrong there is not the others' fault.
  absl::StatusOr<double> Other(const std::string& name, const std::string& row) {
    const auto other = others_.find(name);
    const auto none = MakeError(absl::StatusCode::kUnimplemented, "");
    if (other == others_.end()) return none;
    const absl::StatusOr<double> took = other->second->Measure(row, round_);
    const absl::StatusCode code = took.status().code();
    if (took.ok() || code == absl::StatusCode::kUnimplemented ||
        code == absl::StatusCode::kCancelled) {
      return took;
    }
    LeaveOut(name, took.status());
    return none;
  }

  void LeaveOut(const std::string& name, const absl::Status& why) {
    left_out_ += fmt::format("{} is left out: {}\n", name, MessageOf(why));
    fmt::print(stderr, "{} is left out: {}\n", name, MessageOf(why));
    others_.erase(name);
    for (auto& [row, by_name] : measured_) by_name.erase(name);
  }

  static absl::Status CheckSum(uint64_t sum, uint64_t expected) {
    if (sum == Peer::kNoSum || sum == expected) return absl::OkStatus();
    return DataLoss("other bytes came back: sum={:x} expected={:x}", sum, expected);
  }
  uint64_t PrefixSum() const { return ReadOnce(data_.prefix, kPrefixBytes); }
  uint64_t LayerSum(uint64_t layer) const {
    uint64_t sum = 0;
    for (uint64_t block = 0; block < kBlocks; ++block) {
      sum += ReadOnce(data_.prefix + block * kBlockBytes + layer * kSliceBytes, kSliceBytes);
    }
    return sum;
  }

  absl::StatusOr<double> FetchPrefix(Peer& peer) {
    const Instant start = SystemClock().Now();
    KVASIR_ASSIGN_OR_RETURN(const uint64_t sum, peer.FetchPrefix());
    const double took = Milliseconds(start);
    if (round_ > 0 && peer.open_ms() > 0) opens_.push_back(peer.open_ms());
    KVASIR_RETURN_IF_ERROR(CheckSum(sum, PrefixSum()));
    return took;
  }

  absl::StatusOr<double> Attach(Peer& peer, const std::string& name) {
    if (peer.address().empty()) return FetchPrefix(peer);  // the limits: nothing to attach to
    KVASIR_ASSIGN_OR_RETURN(const nlohmann::json found, Joined(name, peer.address()));
    KVASIR_RETURN_IF_ERROR(CheckSum(found["sum"].get<uint64_t>(), PrefixSum()));
    if (round_ > 0) {
      connects_[name].push_back(found["connect"].get<double>());
      populates_[name].push_back(found["populate"].get<double>());
      if (name == kOurs) attach_opens_.push_back(found["open"].get<double>());
    }
    return found["first"].get<double>();
  }

  absl::StatusOr<double> FetchLayer(Peer& peer) {
    const uint64_t layer = LayerOf(round_);
    const Instant start = SystemClock().Now();
    KVASIR_ASSIGN_OR_RETURN(const uint64_t sum, peer.FetchLayer(layer));
    const double took = Milliseconds(start);
    KVASIR_RETURN_IF_ERROR(CheckSum(sum, LayerSum(layer)));
    return took;
  }

  // The median of some calls, each for another block.
  absl::StatusOr<double> FetchSmall(Peer& peer) {
    std::vector<double> samples;
    for (uint32_t call = 0; call < kSmallCalls; ++call) {
      const uint64_t block = SmallOf(round_, call);
      const Instant start = SystemClock().Now();
      KVASIR_ASSIGN_OR_RETURN(const uint64_t sum, peer.FetchSmall(block));
      samples.push_back(Milliseconds(start));
      KVASIR_RETURN_IF_ERROR(
          CheckSum(sum, ReadOnce(data_.small + block * kSmallBytes, kSmallBytes)));
    }
    return MedianOf(samples).median;
  }

  absl::StatusOr<double> Look(Peer& peer) {
    std::vector<double> samples;
    for (uint32_t call = 0; call < kLookCalls; ++call) {
      const uint64_t block = random_() % kSmallBlocks;
      const Instant start = SystemClock().Now();
      KVASIR_RETURN_IF_ERROR(peer.Look(block));
      samples.push_back(Milliseconds(start));
    }
    return MedianOf(samples).median;
  }

  static absl::StatusOr<double> Store(Peer& peer, bool rows_in_place) {
    if (rows_in_place) KVASIR_RETURN_IF_ERROR(peer.PrepareStore());
    const Instant start = SystemClock().Now();
    KVASIR_RETURN_IF_ERROR(peer.Store(rows_in_place));
    return Milliseconds(start);
  }

  std::string GoalOf(const std::string& row, const std::string& reference) const {
    if (row == "prefix attach" && reference == "read_limit") {
      return options_.huge_pages ? "ratio <= 1.15" : "ratio <= 1.35";
    }
    static const std::map<std::string, std::string> kGoals = {
        {"prefix fetch/read_limit", "ratio <= 1.1"},  {"prefix fetch/redis", "ratio <= 0.125"},
        {"prefix fetch/memcached", "ratio <= 0.143"}, {"prefix attach/read_limit", "ratio <= 1.35"},
        {"layer fetch/redis", "ratio <= 0.05"},       {"store/memcpy", "ratio <= 1.2"},
        {"block fetch/mooncake", "ratio <= 0.1"},     {"block fetch/lmcache", "ratio <= 0.1"},
        {"block fetch/kvblockd", "ratio <= 0.1"},
    };
    const auto goal = kGoals.find(row + "/" + reference);
    return goal == kGoals.end() ? "" : goal->second;
  }

  absl::Status AddRows() {
    for (const auto& [row, by_name] : measured_) {
      for (const auto& [reference, theirs] : by_name) {
        if (reference == kOurs || reference == kInPlace) continue;
        Row added = RowOf(row, by_name.at(kOurs), reference, theirs);
        if (reference == "redis") {
          const MedianInterval in_place = RatioOf(by_name.at(kOurs), by_name.at(kInPlace));
          added.extra["in_place"] = MedianOf(by_name.at(kInPlace)).median;
          added.extra["ratio_in_place"] = in_place.median;
        }
        const auto other = others_.find(reference);
        if (other != others_.end()) added.extra["reference_client"] = other->second->about();
        report_.Add(std::move(added));
      }
    }
    AddAlone("prefix fetch/until the first byte", opens_, "ms", "");
    AddAlone("prefix attach/until the first byte", attach_opens_, "ms", "");
    for (const auto& [name, samples] : populates_) {
      if (name != kInPlace) AddAlone("prefix attach/populate/" + name, samples, "ms", "");
    }
    for (const auto& [name, samples] : connects_) {
      if (name != kInPlace) AddAlone("prefix attach/connect/" + name, samples, "ms", "");
    }
    AddIndexLookup();
    fmt::print("{}", report_.ToTable());
    fmt::print(
        "not measured: other hosts, many clients at once, values of several sizes, persistence, "
        "what an engine does with the rows{}\n{}",
        options_.others.empty() ? "; Mooncake, LMCache and kvblockd (--all)" : "", left_out_);
    const absl::Status drawn =
        DrawRatios(report_, "Kvasir's time / time of the reference", options_.json);
    if (!drawn.ok()) fmt::print(stderr, "no plot: {}\n", MessageOf(drawn));
    return report_.Write(options_.json);
  }

  static MedianInterval RatioOf(const std::vector<double>& ours,
                                const std::vector<double>& theirs) {
    std::vector<double> ratios;
    for (size_t i = 0; i < ours.size(); ++i) ratios.push_back(ours[i] / theirs[i]);
    return MedianOf(ratios);
  }

  Row RowOf(const std::string& name, const std::vector<double>& ours, const std::string& reference,
            const std::vector<double>& theirs) const {
    const MedianInterval value = MedianOf(ours), ratio = RatioOf(ours, theirs);
    const MedianInterval of_reference = MedianOf(theirs);
    Row row;
    row.name = name;
    row.value = value.median;
    row.unit = "ms";
    row.reference = of_reference.median;
    row.reference_name = reference;
    row.goal = GoalOf(name, reference);
    row.extra = {{"low", value.low},
                 {"high", value.high},
                 {"reference_low", of_reference.low},
                 {"reference_high", of_reference.high},
                 {"ratio_median", ratio.median},
                 {"ratio_low", ratio.low},
                 {"ratio_high", ratio.high}};
    return row;
  }

  void AddAlone(const std::string& name, const std::vector<double>& samples,
                const std::string& unit, const std::string& goal) {
    const MedianInterval value = MedianOf(samples);
    Row row;
    row.name = name;
    row.value = value.median;
    row.unit = unit;
    row.goal = goal;
    row.extra = {{"low", value.low}, {"high", value.high}};
    report_.Add(std::move(row));
  }

  // What the daemon does for a block, without the way there: each call timed by itself, the clock
  // included.
  void AddIndexLookup() {
    BlockIndex index(kIndexBlocks);
    std::vector<ChainKey> keys;
    std::mt19937_64 random(3);
    for (uint32_t i = 0; i < kIndexBlocks; ++i) {
      keys.push_back({random(), random()});
      index[index.Insert(keys.back(), kNoBlock)].resident = 1;
    }
    std::vector<double> rounds;
    for (uint32_t round = 0; round < options_.rounds; ++round) {
      flushed_ += ReadOnce(flush_.get(), kFlushBytes);
      std::vector<double> samples;
      for (uint32_t call = 0; call < 10'000; ++call) {
        const ChainKey& key = keys[random() % keys.size()];
        const Instant start = SystemClock().Now();
        found_ += index.Find(key);
        samples.push_back(Milliseconds(start) * 1e6);
      }
      rounds.push_back(MedianOf(samples).median);
    }
    AddAlone("block lookup/in the index", rounds, "ns", "value <= 1000");
  }

  const Options options_;
  std::map<std::string, std::unique_ptr<Peer>> peers_;
  std::map<std::string, std::unique_ptr<DriverPeer>> others_;
  std::string left_out_;
  PeerData data_;
  uint64_t flushed_ = 0, found_ = 0;
  uint32_t round_ = 0;
  std::mt19937 random_{1};
  const PlainMemory flush_ = MakePlainMemory(kFlushBytes);
  std::map<std::string, std::map<std::string, std::vector<double>>> measured_;  // by row and peer
  std::map<std::string, std::vector<double>> connects_, populates_;             // by peer
  std::vector<double> opens_, attach_opens_;                                    // ours
  Report report_;
};

int Main(int argc, char** argv) {
  Options options;
  if (const char* const path = std::getenv("KVASIR_BENCH_JSON")) options.json = path;
  CLI::App app("What a hit costs, beside Redis, memcached, Boost.Interprocess, a read and memcpy.");
  app.add_option("--rounds", options.rounds, "rounds of all rows")->check(CLI::Range(5, 1000));
  app.add_flag("--huge-pages", options.huge_pages,
               "memory.huge_pages = \"try\", which the host must allow (docs/operations.md)");
  app.add_option("--other", options.others,
                 "a peer whose client is a program, as NAME=COMMAND; ./dev bench peers --all gives "
                 "those of bench/peers");
  app.add_option("--join", options.join, "")->group("");
  app.add_option("--at", options.at, "")->group("");
  CLI11_PARSE(app, argc, argv);
  NoticeInterrupts();
  const absl::Status status =
      options.join.empty() ? Bench(options).Run() : RunJoined(options.join, options.at);
  // What an interrupt ends first is one of those that are compared.
  const std::string why = Interrupted() ? "interrupted" : MessageOf(status);
  if (!status.ok()) std::fprintf(stderr, "bench_peers: %s\n", why.c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace kvasir::bench

int main(int argc, char** argv) { return kvasir::bench::Main(argc, argv); }
