#include "replay/decode_queue.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <random>

#include "base/error.h"
#include "policies/preemption/kendall_tau.h"

namespace kvasir::replay {
namespace {

constexpr size_t kLatestResponses = 256;  // of which the mean is what is typical, as in the daemon

// A request that is there: it waits, runs, or is suspended.
struct Sequence {
  size_t request = 0;
  uint64_t rows = 0;  // of its response so far
  bool runs = false, begun = false;
};

class Server {
 public:
  Server(std::span<const DecodeRequest> requests, const DecodeServer& server)
      : requests_(requests), server_(server) {}

  DecodeResult Run() {
    while (next_ < requests_.size() || !there_.empty()) {
      if (there_.empty()) now_us_ = std::max(now_us_, requests_[next_].arrival_us);
      while (next_ < requests_.size() && requests_[next_].arrival_us <= now_us_) {
        there_.push_back({next_++});
      }
      const uint64_t restored = Fit();
      Step(restored);
    }
    return Result();
  }

 private:
  uint64_t RowsOf(const Sequence& sequence) const {
    return requests_[sequence.request].prompt_rows + sequence.rows + 1;  // with the next one
  }

  // Who runs in the next step. Rows that are brought back for it.
  uint64_t Fit() {
    uint64_t running = 0, waiting = 0;
    for (const Sequence& one : there_) (one.runs ? running : waiting) += RowsOf(one);
    if (running <= server_.memory_rows && waiting == 0) return 0;
    const std::vector<size_t> order = Order();
    for (size_t i = 0; i < order.size() && running > server_.memory_rows; ++i) {
      Sequence& one = there_[order[i]];
      if (!one.runs) continue;
      one.runs = false;
      running -= RowsOf(one);
      ++result_.suspensions;
    }
    uint64_t restored = 0;
    for (auto at = order.rbegin(); at != order.rend(); ++at) {
      Sequence& one = there_[*at];
      if (one.runs) continue;
      const uint64_t rows = RowsOf(one);
      // Who stands first waits for room, and is not overtaken by small ones.
      if (running + rows > server_.memory_rows) break;
      one.runs = true;
      running += rows;
      if (one.begun) restored += rows;
      one.begun = true;
    }
    return restored;
  }

  std::vector<size_t> Order() const {
    std::vector<preemption::Candidate> candidates;
    for (const Sequence& one : there_) {
      const DecodeRequest& request = requests_[one.request];
      candidates.push_back(
          {request.hints, one.rows, (now_us_ - request.arrival_us) / 1000, one.request});
    }
    const uint64_t typical = latest_.empty() ? 256 : std::max<uint64_t>(sum_ / latest_.size(), 1);
    return preemption::SuspensionOrder(candidates, {server_.starving_after_ms, typical});
  }

  void Step(uint64_t restored) {
    now_us_ += server_.step_us + static_cast<uint64_t>(static_cast<double>(restored) * 1e6 /
                                                       server_.restore_rows_per_s);
    std::erase_if(there_, [&](Sequence& one) {
      if (!one.runs) return false;
      const DecodeRequest& request = requests_[one.request];
      if (++one.rows < request.response_rows) return false;
      const auto us = static_cast<double>(now_us_ - request.arrival_us);
      ms_a_row_.push_back(us / 1000 / static_cast<double>(request.response_rows));
      seconds_.push_back(us / 1e6);
      latest_.push_back(request.response_rows);
      sum_ += request.response_rows;
      if (latest_.size() > kLatestResponses) {
        sum_ -= latest_.front();
        latest_.pop_front();
      }
      return true;
    });
  }

  DecodeResult Result() {
    if (seconds_.empty()) return result_;
    const auto n = static_cast<double>(seconds_.size());
    for (const double ms : ms_a_row_) result_.mean_ms_a_row += ms / n;
    for (const double s : seconds_) result_.mean_s += s / n;
    std::sort(ms_a_row_.begin(), ms_a_row_.end());
    result_.p50_ms_a_row = ms_a_row_[ms_a_row_.size() / 2];
    result_.p99_ms_a_row = ms_a_row_[ms_a_row_.size() * 99 / 100];
    result_.longest_s = *std::max_element(seconds_.begin(), seconds_.end());
    return result_;
  }

  const std::span<const DecodeRequest> requests_;
  const DecodeServer server_;
  size_t next_ = 0;  // that has not arrived
  uint64_t now_us_ = 0;
  std::vector<Sequence> there_;
  std::deque<uint64_t> latest_;
  uint64_t sum_ = 0;
  std::vector<double> ms_a_row_, seconds_;
  DecodeResult result_;
};

}  // namespace

absl::StatusOr<DecodeResult> Decode(std::span<const DecodeRequest> requests,
                                    const DecodeServer& server) {
  for (const DecodeRequest& one : requests) {
    if (one.prompt_rows + one.response_rows > server.memory_rows) {
      return InvalidArgument("a request does not fit the memory: rows={} memory_rows={}",
                             one.prompt_rows + one.response_rows, server.memory_rows);
    }
  }
  return Server(requests, server).Run();
}

std::vector<DecodeRequest> DecodeRequestsOf(const Trace& trace) {
  std::vector<DecodeRequest> requests;
  for (size_t i = 0; i < trace.requests(); ++i) {
    const eviction::Request request = trace.request(i);
    requests.push_back({static_cast<uint64_t>(request.now_us),
                        request.tokens_in,
                        std::max<uint64_t>(request.tokens_out, 1),
                        {}});
  }
  return requests;
}

uint64_t MemoryRowsFor(std::span<const DecodeRequest> requests, double load, uint64_t step_us) {
  double row_us = 0;
  uint64_t largest = 0;
  for (const DecodeRequest& one : requests) {
    const double rows =
        static_cast<double>(one.prompt_rows) + static_cast<double>(one.response_rows) / 2;
    row_us += rows * static_cast<double>(one.response_rows * step_us);
    largest = std::max(largest, one.prompt_rows + one.response_rows);
  }
  if (requests.empty()) return 0;
  const uint64_t span = requests.back().arrival_us - requests.front().arrival_us;
  const double mean = row_us / static_cast<double>(std::max<uint64_t>(span, 1));
  return std::max(static_cast<uint64_t>(mean / load), largest);
}

void Predict(const Predictor& predictor, uint64_t seed, std::span<DecodeRequest> requests) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> noise(0, 1);
  for (DecodeRequest& one : requests) {
    one.hints = {};
    if (predictor.none) continue;
    const double off = std::exp(predictor.noise * noise(random));
    const double rows = std::clamp(static_cast<double>(one.response_rows) * off, 1.0, 1e9);
    if (predictor.by_rank) {
      one.hints.predicted_rank = static_cast<uint32_t>(rows);
    } else {
      one.hints.predicted_rows = static_cast<uint64_t>(rows);
    }
  }
}

std::optional<double> TauOf(std::span<const DecodeRequest> requests) {
  std::vector<preemption::Foretold> pairs;
  for (const DecodeRequest& one : requests) {
    if (one.hints.predicted_rows) pairs.push_back({*one.hints.predicted_rows, one.response_rows});
    if (one.hints.predicted_rank) pairs.push_back({*one.hints.predicted_rank, one.response_rows});
  }
  return preemption::KendallTau(pairs);
}

}  // namespace kvasir::replay
