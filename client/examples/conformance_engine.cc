#include "client/examples/conformance_engine.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>

#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir::examples {
namespace {

constexpr size_t kLogitsMax = 256;  // of a large vocabulary some are enough to compare
constexpr uint32_t kBatch = 64;
constexpr char kHexDigits[] = "0123456789abcdef";

std::string ToHex(const std::string& bytes) {
  std::string text;
  for (const char byte : bytes) {
    text += kHexDigits[static_cast<unsigned char>(byte) >> 4];
    text += kHexDigits[static_cast<unsigned char>(byte) & 15];
  }
  return text;
}

std::string FromHex(const std::string& text) {
  std::string bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes += static_cast<char>(std::strtoul(text.substr(i, 2).c_str(), nullptr, 16));
  }
  return bytes;
}

std::vector<float> Some(const std::vector<float>& logits) {
  std::vector<float> some;
  const size_t step = (logits.size() + kLogitsMax - 1) / kLogitsMax;
  for (size_t i = 0; i < logits.size(); i += step) some.push_back(logits[i]);
  return some;
}

}  // namespace

// [feed]
absl::StatusOr<nlohmann::ordered_json> ConformanceEngine::Feed(Text& text,
                                                               std::span<const uint32_t> ids,
                                                               uint32_t batch) {
  std::vector<float> logits;
  while (!ids.empty()) {
    const auto want = static_cast<uint32_t>(std::min<size_t>(ids.size(), batch));
    KVASIR_ASSIGN_OR_RETURN(const StepView step, Begin(text, want));
    const std::span<const uint32_t> now = ids.first(step.count);  // fewer than wanted at a border
    KVASIR_ASSIGN_OR_RETURN(logits, model_.Compute(step, now));
    KVASIR_RETURN_IF_ERROR(Commit(text, now));
    ids = ids.subspan(step.count);
  }
  const auto next = std::max_element(logits.begin(), logits.end()) - logits.begin();
  const uint64_t rows = text.sequence ? text.sequence->rows() : text.own->rows();
  return Json{{"rows", rows}, {"next", next}, {"logits", Some(logits)}};
}
// [end]

absl::StatusOr<StepView> ConformanceEngine::Begin(Text& text, uint32_t want) {
  return text.sequence ? text.sequence->Begin(want) : text.own->Begin(want);
}

absl::Status ConformanceEngine::Commit(Text& text, std::span<const uint32_t> ids) {
  return text.sequence ? text.sequence->Commit(ids) : text.own->Commit(ids);
}

absl::Status ConformanceEngine::Connect() {
  if (session_ != nullptr) return absl::OkStatus();
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, Session::Connect(options_));
  KVASIR_ASSIGN_OR_RETURN(spec_, model_.Spec());
  KVASIR_ASSIGN_OR_RETURN(handle_, session->RegisterModel(spec_));
  session_ = std::move(session);
  return absl::OkStatus();
}

absl::StatusOr<ConformanceEngine::Json> ConformanceEngine::Hello() {
  KVASIR_RETURN_IF_ERROR(Connect());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<PrivateRows> own, model_.NewPrivateRows());
  std::vector<std::string> offers = model_.Offers();
  offers.insert(offers.end(), {"prefix", "truncate", "snapshot", "reconnect"});
  if (own != nullptr) offers.emplace_back("private");
  return Json{{"protocol", 1},
              {"engine", model_.name()},
              {"layers", spec_.layers.size()},
              {"vocabulary", spec_.vocabulary_size},
              {"slots_per_block", handle_.slots_per_block},
              {"offers", offers}};
}

absl::StatusOr<ConformanceEngine::Json> ConformanceEngine::Open(const Json& request) {
  const uint64_t number = request.at("text");
  Text text;
  if (request.value("memory", "") == "private") {
    KVASIR_ASSIGN_OR_RETURN(text.own, model_.NewPrivateRows());
    if (text.own == nullptr) return Unimplemented("the model has no memory of its own");
  } else {
    KVASIR_RETURN_IF_ERROR(Connect());
    OpenOptions open;
    open.model = handle_;
    open.retention = request.value("retention", "full");
    open.snapshot = FromHex(request.value("snapshot", ""));
    if (request.contains("prompt")) {
      open.prefix = PrefixOptions{};
      open.prefix->tokens = request["prompt"].get<std::vector<uint32_t>>();
      open.prefix->rows_max = open.prefix->tokens.size() - 1;  // the last one gives the logits
    }
    KVASIR_ASSIGN_OR_RETURN(text.sequence, session_->OpenSequence(open));
  }
  const uint64_t rows = text.sequence ? text.sequence->rows() : 0;
  texts_.insert_or_assign(number, std::move(text));
  return Json{{"rows", rows}};
}

absl::StatusOr<ConformanceEngine::Json> ConformanceEngine::Close(uint64_t number) {
  const auto found = texts_.find(number);
  const absl::Status status =
      found->second.sequence ? found->second.sequence->Close() : absl::OkStatus();
  texts_.erase(found);
  if (!status.ok()) return status;
  return Json::object();
}

ConformanceEngine::Text* ConformanceEngine::Find(uint64_t number) {
  const auto found = texts_.find(number);
  return found == texts_.end() ? nullptr : &found->second;
}

absl::StatusOr<ConformanceEngine::Json> ConformanceEngine::Answer(const Json& request) {
  const std::string op = request.at("op");
  if (op == "hello") return Hello();
  if (op == "open") return Open(request);
  const uint64_t number = request.at("text");
  Text* const text = Find(number);
  if (text == nullptr) return NotFound("no such text: number={}", number);
  if (op == "close") return Close(number);
  return AnswerAbout(*text, op, request);
}

absl::StatusOr<ConformanceEngine::Json> ConformanceEngine::AnswerAbout(Text& text,
                                                                       const std::string& op,
                                                                       const Json& request) {
  if (op == "feed") {
    const auto ids = request.at("ids").get<std::vector<uint32_t>>();
    if (ids.empty()) return InvalidArgument("no ids");
    for (const uint32_t id : ids) {
      if (id >= spec_.vocabulary_size) return InvalidArgument("no such token: id={}", id);
    }
    return Feed(text, ids, std::max(request.value("batch", kBatch), 1U));
  }
  if (!text.sequence) return Unimplemented("not with private memory: op={}", op);
  if (op == "truncate") {
    KVASIR_RETURN_IF_ERROR(text.sequence->Truncate(request.at("rows").get<uint64_t>()));
    return Json{{"rows", text.sequence->rows()}};
  }
  if (op == "publish") {
    KVASIR_ASSIGN_OR_RETURN(const Sequence::Published published, text.sequence->PublishPrefix());
    return Json{{"rows", published.rows}};
  }
  if (op == "save") {
    KVASIR_ASSIGN_OR_RETURN(const Snapshot saved, text.sequence->Save());
    return Json{{"snapshot", ToHex(saved.id)}, {"rows", saved.rows}};
  }
  return Unimplemented("unknown op: op={}", op);
}

void ConformanceEngine::Serve(std::istream& in, std::ostream& out) {
  for (std::string line; std::getline(in, line);) {
    const Json request = Json::parse(line, nullptr, false);
    absl::StatusOr<Json> answer = InvalidArgument("not a request: {}", line);
    try {  // of the JSON library: a field is missing, or is something else
      if (request.is_object()) answer = Answer(request);
    } catch (const Json::exception& error) {
      answer = InvalidArgument("not a request: {}", error.what());
    }
    if (answer.ok()) {
      out << answer->dump() << std::endl;
      continue;
    }
    const Json error{{"error", MessageOf(answer.status())},
                     {"code", absl::StatusCodeToString(answer.status().code())}};
    out << error.dump() << std::endl;
    if (absl::IsUnavailable(answer.status())) {  // the session is gone, and every text with it
      texts_.clear();
      session_.reset();
    }
  }
}

ConnectOptions OptionsOfEnvironment() {
  ConnectOptions options;
  if (const char* text = std::getenv("KVASIR_CONTROL_SOCKET")) options.control_socket = text;
  if (const char* text = std::getenv("KVASIR_DATA_SOCKET")) options.data_socket = text;
  if (const char* text = std::getenv("KVASIR_DEADLINE_MS")) {
    options.deadline = std::chrono::milliseconds(std::max(std::atoi(text), 1));
  }
  return options;
}

}  // namespace kvasir::examples
