#include "client/conformance/tested_engine.h"

#include <signal.h>

#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/small_file.h"
#include "base/status_macros.h"

namespace kvasir::conformance {
namespace {

constexpr uint64_t kLogBytesMax = 16 << 20;
constexpr size_t kLogTail = 400;
constexpr Milliseconds kEndOfTheDead{200};
constexpr int kProtocol = 1;

absl::StatusCode CodeOf(const std::string& name) {
  for (int code = 1; code <= 16; ++code) {
    const auto known = static_cast<absl::StatusCode>(code);
    if (name == absl::StatusCodeToString(known)) return known;
  }
  return absl::StatusCode::kUnknown;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TestedEngine>> TestedEngine::Start(
    const std::string& command, std::vector<std::string> environment, const std::string& log,
    Milliseconds deadline, Milliseconds patience) {
  environment.push_back(fmt::format("KVASIR_DEADLINE_MS={}", deadline.count()));
  KVASIR_ASSIGN_OR_RETURN(Process process,
                          Process::Start({"/bin/sh", "-c", "exec " + command}, environment, log));
  return std::unique_ptr<TestedEngine>(new TestedEngine(std::move(process), log, patience));
}

absl::Status TestedEngine::Broken(const std::string& what, const std::string& op) {
  std::string text = fmt::format("{}: op={}", what, op);
  const absl::StatusOr<int> end = process_.Wait(kEndOfTheDead);
  if (end.ok()) text += fmt::format("; the engine has ended by {}", DescribeEnd(*end));
  const absl::StatusOr<std::string> log = ReadSmallFile(log_, kLogBytesMax);
  if (log.ok() && !log->empty()) {
    const size_t from = log->size() > kLogTail ? log->size() - kLogTail : 0;
    text += "; its standard error ends with: " + log->substr(from);
    while (text.ends_with('\n')) text.pop_back();
  }
  return Internal("{}", text);
}

absl::StatusOr<TestedEngine::Json> TestedEngine::Ask(const Json& request) {
  const std::string op = request.at("op");
  if (const absl::Status sent = process_.WriteLine(request.dump(), patience_); !sent.ok()) {
    return Broken(MessageOf(sent), op);
  }
  const absl::StatusOr<std::string> line = process_.ReadLine(patience_);
  if (absl::IsDeadlineExceeded(line.status())) {
    return Broken(fmt::format("no answer within {} ms", patience_.count()), op);
  }
  if (!line.ok()) return Broken("no answer, " + MessageOf(line.status()), op);
  Json answer = Json::parse(*line, nullptr, false);
  if (!answer.is_object()) return Broken("not a JSON object: " + line->substr(0, 200), op);
  const auto error = answer.find("error");
  if (error == answer.end()) return answer;
  const auto code = answer.find("code");
  return MakeError(code != answer.end() && code->is_string() ? CodeOf(code->get<std::string>())
                                                             : absl::StatusCode::kUnknown,
                   error->is_string() ? error->get<std::string>() : error->dump());
}

absl::StatusOr<uint64_t> TestedEngine::AskRows(const Json& request) {
  KVASIR_ASSIGN_OR_RETURN(const Json answer, Ask(request));
  const auto rows = answer.find("rows");
  if (rows == answer.end() || !rows->is_number_unsigned()) {
    return Broken("an answer without rows: " + answer.dump(), request.at("op"));
  }
  return rows->get<uint64_t>();
}

absl::StatusOr<EngineFacts> TestedEngine::Hello() {
  KVASIR_ASSIGN_OR_RETURN(const Json answer, Ask({{"op", "hello"}, {"protocol", kProtocol}}));
  EngineFacts facts;
  const auto number = [&answer](const char* name) {
    const auto found = answer.find(name);
    return found != answer.end() && found->is_number_unsigned() ? found->get<uint32_t>() : 0;
  };
  if (answer.contains("engine") && answer["engine"].is_string()) facts.name = answer["engine"];
  facts.layers = number("layers");
  facts.vocabulary = number("vocabulary");
  facts.slots_per_block = number("slots_per_block");
  // As the guide bounds them; checks reckon with that.
  if (number("protocol") != kProtocol || facts.layers < 1 || facts.layers > 1024 ||
      facts.slots_per_block < 16 || facts.slots_per_block > 128 || facts.vocabulary < 16) {
    return Broken(
        "protocol (1), layers (1 to 1024), slots_per_block (16 to 128) or vocabulary (16 or more) "
        "missing: " +
            answer.dump(),
        "hello");
  }
  for (const Json& offer : answer.value("offers", Json::array())) {
    if (offer.is_string()) facts.offers.insert(offer.get<std::string>());
  }
  return facts;
}

absl::StatusOr<uint64_t> TestedEngine::Open(uint64_t text, const OpenRequest& request) {
  Json json{{"op", "open"}, {"text", text}, {"retention", request.retention}};
  if (!request.prompt.empty()) json["prompt"] = request.prompt;
  if (!request.snapshot.empty()) json["snapshot"] = request.snapshot;
  if (request.private_memory) json["memory"] = "private";
  return AskRows(json);
}

absl::StatusOr<FeedAnswer> TestedEngine::Feed(uint64_t text, std::span<const uint32_t> ids,
                                              uint32_t batch) {
  KVASIR_ASSIGN_OR_RETURN(const Json answer, Ask({{"op", "feed"},
                                                  {"text", text},
                                                  {"ids", Ids(ids.begin(), ids.end())},
                                                  {"batch", batch}}));
  FeedAnswer feed;
  const auto rows = answer.find("rows"), next = answer.find("next"), logits = answer.find("logits");
  if (rows == answer.end() || next == answer.end() || logits == answer.end() ||
      !rows->is_number_unsigned() || !next->is_number_unsigned() || !logits->is_array() ||
      logits->empty()) {
    return Broken("rows, next or logits missing: " + answer.dump().substr(0, 200), "feed");
  }
  feed.rows = *rows;
  feed.next = *next;
  for (const Json& logit : *logits) {
    if (!logit.is_number() || !std::isfinite(logit.get<double>())) {
      return Broken("a logit that is no finite number: " + logit.dump(), "feed");
    }
    feed.logits.push_back(logit.get<double>());
  }
  return feed;
}

absl::Status TestedEngine::FeedAndLeave(uint64_t text, std::span<const uint32_t> ids,
                                        uint32_t batch) {
  const Json request{
      {"op", "feed"}, {"text", text}, {"ids", Ids(ids.begin(), ids.end())}, {"batch", batch}};
  return process_.WriteLine(request.dump(), patience_);
}

absl::StatusOr<uint64_t> TestedEngine::Truncate(uint64_t text, uint64_t rows) {
  return AskRows({{"op", "truncate"}, {"text", text}, {"rows", rows}});
}

absl::StatusOr<uint64_t> TestedEngine::Publish(uint64_t text) {
  return AskRows({{"op", "publish"}, {"text", text}});
}

absl::StatusOr<std::string> TestedEngine::Save(uint64_t text) {
  KVASIR_ASSIGN_OR_RETURN(const Json answer, Ask({{"op", "save"}, {"text", text}}));
  const auto id = answer.find("snapshot");
  if (id == answer.end() || !id->is_string()) {
    return Broken("an answer without snapshot: " + answer.dump(), "save");
  }
  return id->get<std::string>();
}

absl::Status TestedEngine::Close(uint64_t text) {
  return Ask({{"op", "close"}, {"text", text}}).status();
}

void TestedEngine::Kill() {
  process_.Signal(SIGKILL);
  (void)process_.Wait(patience_);
}

absl::Status TestedEngine::End() {
  process_.CloseInput();
  const absl::StatusOr<int> end = process_.Wait(patience_);
  if (!end.ok()) {
    return Internal("the engine does not end with its standard input: waited_ms={}",
                    patience_.count());
  }
  if (*end != 0) return Broken("the engine's end", "end of input");
  return absl::OkStatus();
}

}  // namespace kvasir::conformance
