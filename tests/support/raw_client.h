// What a client is without libkvasir (client/attack/by_hand.h), for tests: what is refused is a
// failure of the test.
#ifndef KVASIR_TESTS_SUPPORT_RAW_CLIENT_H_
#define KVASIR_TESTS_SUPPORT_RAW_CLIENT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "client/attack/by_hand.h"

namespace kvasir::testing {

using attack::GoodHello;
using attack::GoodSpec;
using RawCalls = attack::Calls;
using RawDataSocket = attack::DataSocket;

// An engine by hand: one session, one model, whatever the test puts into the desk.
class RawEngine {
 public:
  // Says hello, registers TinySpec-like shapes (`layers` layers, 16 slots a block), passes the
  // probe. Adds test failures when something is refused.
  RawEngine(const std::string& control_socket, const std::string& data_socket, uint32_t layers);

  // Opens a sequence; its slot and uid are in the response.
  v1::OpenSequenceResponse Open(const std::string& retention);
  void SetDesk(const v1::OpenSequenceResponse& sequence, uint64_t rows, uint64_t adopted) {
    engine_.SetDesk(sequence, rows, adopted);
  }
  // Writes the id of a row into its trailer. REQUIRES: no extent but the first was needed for it.
  void WriteToken(const v1::OpenSequenceResponse& sequence, uint64_t row, uint32_t id);
  // One need. Returns the result's code and message, or the call's.
  absl::Status Sync(const v1::OpenSequenceResponse& sequence, uint64_t granted_rows,
                    std::optional<uint64_t> table_row = std::nullopt) {
    return engine_.Sync(sequence, granted_rows, table_row);
  }

  RawDataSocket& data() { return engine_.data(); }
  RawCalls& calls() { return engine_.calls(); }
  uint32_t model_id() const { return engine_.model_id(); }

 private:
  attack::Engine engine_;
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_SUPPORT_RAW_CLIENT_H_
