# ruff: noqa: RUF001, ISC004 (patterns of many scripts, each in several lines)
"""How refusals are worded, language by language: patterns over one sentence in lower case.

`refusal_patterns` are anchored at the beginning of a sentence. A clause of a plain "I can't" must name a deed; after
words of regret ("Sorry, but I can't ...") any deed does. What both would take wrongly is in `NO_REFUSAL`.
"""


def _any(*patterns: str) -> str:
    """One pattern that matches where any of them does."""
    return f"(?:{'|'.join(patterns)})"


# What a refusal is followed by in English; it keeps out "I can't wait" and "I can't recommend it enough".
_DEEDS = (
    r"(?:help|assist|provide|comply|fulfill?|do (?:that|this|so|it|what)|give|share|create|write|generate|support|"
    r"engage|participate|answer|discuss|offer|complete|produce|make (?:that|this|content|the|a|an|your)|explain|"
    r"describe|instruct|advise|continue with|proceed|process|respond to|reveal|disclose|accommodate|facilitate|endorse|"
    r"take (?:part|on)|go along|go into|translate|role-?play|tell you (?:how to|where to|which|what)|"
    r"in good conscience|"
    r"show you how|guide|meet (?:that|this|your) request|honou?r|grant|access|browse|open (?:that|this|the)|view|"
    r"carry out|look up|act as|pretend to be|bypass|ignore (?:my|the)|execute|perform|retrieve|search the|promote|"
    r"verify|draft|walk (?:you )?through|reproduce|do your|do homework)\b"
)
# What somebody says they may not do; too common after a plain "can't" to tell a refusal there.
_RIGHTS = r"(?:recommend|predict|comment|name|identify|sign|speculate|diagnose|prescribe|issue|place|book|call|say)\b"
_MAY_DO = _any(_DEEDS, _RIGHTS)
_I = r"(?:i|we)"
_I_AM = r"(?:i'm|i am|we're|we are)"
_ADVERBS = r"(?: (?:really|simply|just|unfortunately|respectfully|also|still|currently|actually|directly|personally))?"
_NOT = r"(?:can't|cannot|can not|won't|will not|could not|couldn't|(?:can't|cannot) and (?:won't|will not))"
_LACK = r"(?:do not|don't)(?: currently| actually)? have"
_UNABLE = r"(?:unable|not able|not allowed|not permitted|not authori[sz]ed|not qualified|not in a position) to"
_OWN = r"my (?:own )?(?:guidelines|policy|policies|programming|principles|rules|instructions)"
_RULES = r"(?:my|our|the|company|its) (?:[a-z]+ )?(?:guidelines|policy|policies|programming|rules|terms)"
_MODEL = r"an? (?:[a-z-]+ ){0,2}?(?:ai|assistant|language model|chat ?bot|bot|model)"
_CLAUSE = r"(?:[^.!?\"]* )?"
_ENGLISH = _any(
    # The speaker doesn't.
    rf"{_I}{_ADVERBS} (?:{_NOT}|am not going to|'m not going to|do not|don't)(?:, however,|, though,)?{_ADVERBS}"
    rf"(?: be able to)? {_DEEDS}",
    rf"{_I_AM}{_ADVERBS} {_UNABLE} {_MAY_DO}",
    rf"{_I_AM} not going to {_DEEDS}",
    rf"{_I_AM} not comfortable (?:with |writ|provid|help|creat|discuss|shar)",
    rf"{_I} (?:do not|don't|wouldn't) feel (?:comfortable|able to)",
    rf"{_I}(?:'ll| will| would|'m going to| am going to)?(?: must| have to| need to)?(?: respectfully| politely)? "
    r"(?:decline|refuse) (?:to|this|that|your|here)",
    rf"{_I}(?: must|'ll have to| (?:will |would |am going to )?(?:have|need) to|'m going to have to)"
    r"(?: respectfully| politely)? (?:decline|refuse|pass\b|say no\b|stop here|draw the line)",
    r"i'd (?:rather not|prefer not to)",
    rf"{_I} (?:do not|don't) think (?:that )?(?:i|it's right for me) (?:should|can|could|to|ought)",
    r"no, i (?:can't|cannot|won't|will not)\b",
    # The speaker lacks what it takes.
    rf"{_I} {_LACK} (?:(?:direct |real-time )?access to (?:your|the|any|real|current|live)|the ability to|"
    rf"permission to|"
    r"the (?:capability|means) to)",
    rf"{_I} have no (?:access to|way of (?:knowing|checking|seeing)|(?:way|means) to)",
    rf"{_I} (?:do not|don't) (?:have|keep|retain) (?:any |a )?(?:memory|record|recollection) of",
    rf"as {_MODEL}(?: [^,.!?\"]*)?,? i(?:'m| am)? (?:{_NOT}|unable to|not able to|{_LACK} (?:the|access|any access))",
    rf"{_I_AM} (?:just |only )?{_MODEL}(?: [^,.!?\"]*)?(?:, so| and|, and|;|, which means) i "
    rf"(?:{_NOT}|am unable to|am not able to|{_LACK} (?:access|the ability))",
    # The deed is none for the speaker.
    rf"(?:that|this)(?: request)? (?:is not|isn't) something (?:that )?{_I} (?:can|am able to|will|'m able to)",
    rf"(?:that's|that is|this is) something (?:that )?{_I} (?:can't|cannot|won't|will not)",
    r"[a-z]+ing [^.!?\"]*(?:is not|isn't) something (?:that )?i(?:'ll| will| can|'m able to| am able to)? ?"
    r"(?:do|help|assist|provide|support|share|write)\b",
    rf"{_CLAUSE}(?:is not|isn't|not|never) something (?:that )?{_I}(?:'m| am|'re| are) "
    r"(?:comfortable|willing|able|allowed|permitted|going|set up|prepared)",
    rf"{_CLAUSE}not something (?:that )?{_I} (?:can|will|could)(?: do| help| assist| provide)?(?: here|"
    rf" for you)?[.!]?$",
    rf"{_CLAUSE}something (?:that )?{_I} (?:will|would|can) never (?:produce|write|help|create|do|provide)",
    rf"{_CLAUSE}a line (?:that )?i(?:'m not willing| am not willing| won't| will not| don't)",
    rf"{_CLAUSE}(?:isn't|aren't|is not|are not) available to me",
    rf"[^.!?\"]*, (?:so|and) {_I} (?:can't|cannot|won't|will not)(?: (?:do|pick|take) [a-z ]+)?[.!]?$",
    r"it(?:'s| is| would be)(?: not appropriate| inappropriate| not right| irresponsible) for me to",
    r"it (?:would|might) not be (?:appropriate|right|responsible|ethical) for me to",
    r"it's not possible for me to (?:help|assist|provide|answer|give|share|do)",
    # Rules forbid it, or it lies elsewhere.
    r"(?:that's|that is|this is|(?:that|this|your) (?:request|question) (?:is|falls|goes)|(?:that|"
    r"this) (?:falls|goes)) "
    rf"(?:well )?(?:outside|beyond) (?:of )?(?:{_OWN}|(?:the scope of )?what {_I} (?:can|am able|may|was|'m|do)|"
    rf"the scope)",
    rf"{_OWN} (?:do not|don't|does not|doesn't|forbid|prohibit|prevent|keep)",
    rf"{_RULES} (?:(?:do not|don't|does not|doesn't) (?:allow|permit|let)|forbids?|prohibits?|prevents?|"
    rf"keeps?) (?:me|us)\b",
    rf"(?:that|this) (?:goes|is) against {_OWN}",
    r"your (?:request|message) (?:violates|goes against|was flagged)",
    rf"{_I} (?:can |am able to |am allowed to |'m here to )?only (?:answer|help|assist|respond|discuss|handle)\b",
    rf"{_I_AM} only (?:able|allowed|permitted|here) to (?:answer|help|assist|respond|discuss)",
)
# What may stand before it: courtesy, and clauses that end in a comma or a colon.
_LEAD = (
    r"(?:(?:(?:i'm|i am|we're|we are) (?:really |very |so |truly |terribly )?(?:sorry|"
    r"afraid)(?: for the inconvenience)?|"
    r"sorry|my apologies|apologies|i apologi[sz]e(?: for [a-z ]*)?|unfortunately|regrettably|sadly|hmm|"
    r"thank you for [a-z ]*|thanks for [a-z ]*|i understand[^.!?]*?|i appreciate[^.!?]*?|i hear[^.!?]*?|"
    r"while [^.!?]*?|as an? (?:ai|assistant|language model|responsible ai)[^,.!?]*?|no|hi|hello)"
    r"(?:[,;:.!—-]+ *| that | ))*"
    r"(?:[^.!?\"“”]*(?:[,;:] | ?[—–] ?)(?:but |however, |so |and |which |though |therefore )?)?"
    r"(?:(?:but|however|so|and|sadly)[, ]+)?"
)
# After words of regret, any deed that is not done is refused.
_REGRET = (
    r"(?:(?:(?:i'm|i am|we're|we are) (?:[a-z]+ )?(?:sorry|afraid)|sorry|my apologies|apologies|unfortunately|"
    r"regrettably|sadly|i apologi[sz]e)(?:,? (?:but|that)|,)? )+(?:but |that )?"
) + _any(
    rf"{_I}{_ADVERBS} {_NOT} [a-z]+",
    rf"{_I}{_ADVERBS} {_LACK} (?:the|any|access)",
    rf"{_I_AM}{_ADVERBS} {_UNABLE} [a-z]+",
    rf"(?:that's|that is|this is|it's) (?:simply )?(?:not (?:possible|something (?:that )?{_I})|against)",
)
# Of each other language, the clause that refuses; what may stand before it is the apology below.
_OTHERS = (
    # German
    r"(?:(?:[^,.!?]+ )?werde ich (?:[^ ,.!?]+ ){0,3}?(?:nicht|kein(?:e|en)?) [^,.!?]*(?:en|ern|eln)(?:[ ,.!?]|$)|"
    r"(?:habe|hab) ich(?: leider)? (?:keinen zugriff|keine (?:möglichkeit|berechtigung|befugnis))|"
    r"(?:ich|wir) (?:kann|darf|können|dürfen) (?:nur|ausschließlich|lediglich) [^.!?]*(?:beantworten|helfen|"
    r"unterstützen)|"
    r"(?:dabei|das|damit|hierbei|hierzu|dazu|darüber|diese[rns]? [^ ,.!?]+)(?: [^ ,.!?]+)? (?:kann|darf|werde|"
    r"möchte) ich(?: [^ ,.!?]+){0,3}? (?:nicht|keine?[nrs]?\b)|"
    r"(?:(?:ich|wir) (?:kann|kann's|darf|werde|können|dürfen|möchte)|(?:kann|darf|werde|können|dürfen) (?:ich|"
    r"wir))(?: [^ ,.!?]+){0,6}? (?:nicht|kein|keine|keinen|keinerlei)(?: [^ ,.!?]+){0,6}? "
    r"(?:helfen|weiterhelfen|unterstützen|beantworten|bereitstellen|geben|erstellen|schreiben|nennen|erklären|"
    r"erfüllen|nachkommen|anbieten|teilen|behilflich|verraten|sagen|weitergeben|zugreifen|öffnen|liefern|verfassen|"
    r"generieren|ausführen|durchführen|beraten|abrufen|einsehen|herausgeben|mitteilen|übersetzen|empfehlen)|"
    r"(?:ich|wir) (?:kann|darf|werde|können|dürfen|werden) (?:ihnen|dir|euch)(?: leider| dabei| damit| hier| hierbei)* "
    r"(?:nicht (?:verraten|sagen|helfen|dabei)|kein(?:e|en|erlei)? (?:auskunft|rat|angaben|informationen|anleitung))|"
    r"(?:ich|wir) (?:habe|haben)(?: leider)? (?:keinen zugriff|keine (?:möglichkeit|berechtigung|befugnis))|"
    r"(?:als|da ich) (?:ein |eine )?(?:reine[rs]? )?(?:ki|sprachmodell|assistent)[^,.!?]*?,? (?:kann|darf|habe) ich"
    r"(?: [^ ,.!?]+){0,6}? (?:nicht|kein)|"
    r"(?:ich lehne|wir lehnen) (?:das|dies|es|diese anfrage) ab|(?:dazu|dabei|das) (?:muss|"
    r"möchte) ich (?:\S+ )?ablehnen|"
    r"(?:ich|wir) (?:muss|müssen) (?:das|dies|diese (?:bitte|anfrage))? ?(?:leider )?ablehnen|"
    r"das geht leider nicht|das ist (?:mir )?(?:leider )?nicht möglich|"
    r"(?:ich bin|wir sind)(?: leider)? nicht (?:in der lage|befugt|berechtigt)|es ist mir (?:leider )?nicht möglich)",
    # French
    r"(?:(?:je|nous) (?:ne|n')\s?(?:peux|pouvons|puis|saurais|vais|veux)(?: malheureusement| hélas| donc)? pas "
    r"(?:vous |t'|te |l'|le |la |les |y |en )?[a-zéèêâîûç]+(?:er|ir|re)\b|"
    r"je n'ai (?:malheureusement )?pas (?:accès|la possibilité|le droit|l'autorisation)|"
    r"(?:je|nous) ne (?:suis|sommes) (?:malheureusement |hélas )?pas (?:en mesure|autorisée?s?|habilitée?s?|capables?)|"
    r"(?:il|cela) (?:m'est|nous est) (?:malheureusement )?impossible|je (?:dois|préfère) (?:refuser|décliner|ne pas)|"
    r"je refuse de|je (?:me dois de|tiens à) (?:refuser|décliner)|"
    r"en tant qu[e'] ?(?:ia|intelligence|modèle|assistant)[^,.!?]*, je (?:ne|n'))",
    # Spanish
    r"(?:(?:yo |nosotros )?no (?:puedo|podemos|podré|debo|voy a|me es posible)(?: [^ ,.!?]+)? ?"
    r"[a-záéíóúñ]+(?:ar|er|ir|ír)(?:te|le|les|lo|la|los|las|me|se|os)?\b|"
    r"(?:yo )?no (?:estoy|estamos) (?:en condiciones|autorizad[oa]s?|capacitad[oa]s?|en posición)|"
    r"no tengo (?:acceso|permiso|la capacidad|la posibilidad|autorización)|no me es posible|"
    r"(?:debo|tengo que|prefiero) (?:rechazar|declinar|negarme)|me niego a|prefiero no |(?:solo|sólo|"
    r"únicamente) (?:puedo|estoy autorizad))",
    # Italian
    r"(?:(?:io )?non (?:posso|possiamo|potrò|sono in grado di)(?: [^ ,.!?]+)? ?"
    r"[a-zàèéìòù]+(?:are|ere|ire|ar|er|ir|r)(?:ti|le|vi|lo|la|mi|si|gli|ne|telo|velo)?\b|non sono (?:in grado|"
    r"autorizzat)|"
    r"non ho (?:accesso|la possibilità|il permesso)|mi è impossibile|devo (?:rifiutare|declinare)|mi rifiuto|"
    r"preferisco non |posso (?:solo|soltanto) (?:rispondere|aiutar))",
    # Portuguese
    r"(?:(?:eu )?não (?:posso|podemos|consigo|vou|conseguimos)(?: [^ ,.!?]+)? ?"
    r"[a-zãáâéêíóôõúç]+(?:ar|er|ir|or)(?:-?(?:te|lhe|lo|la|me|se))?\b|(?:eu )?não (?:posso|consigo) (?:ajudá|"
    r"fornecê|fazê)|"
    r"não me é possível|não (?:estou|sou) (?:autorizad|em condições|capaz)|não tenho (?:acesso|permissão|"
    r"autorização|como)|"
    r"(?:preciso|devo|tenho que|tenho de) recusar|recuso-me|prefiro não |(?:só|apenas) (?:posso|estou autorizad|"
    r"consigo))",
    # Dutch
    r"(?:(?:(?:ik|wij|we) (?:kan|kunnen|mag|zal)|(?:kan|kunnen|mag) (?:ik|wij|we))(?: [^ ,.!?]+){0,6}? (?:niet|"
    r"geen)(?: [^ ,.!?]+){0,6}? ?(?:helpen|geven|bieden|beantwoorden|schrijven|doen|"
    r"verstrekken|maken|voldoen|delen|openen|bekijken|vertellen|zeggen|uitvoeren|meewerken|adviseren)|"
    r"(?:daar|hier|daarmee|hiermee|dat|daarover|hierover)(?: mee| over)? (?:kan|"
    r"mag) ik(?: [^ ,.!?]+){0,3}? (?:niet|geen)|"
    r"ik heb (?:helaas )?geen (?:toegang|mogelijkheid)|ik ben (?:helaas )?niet (?:in staat|bevoegd|gemachtigd)|"
    r"dat (?:gaat|is|kan) (?:helaas )?niet(?: mogelijk)?\b|ik moet (?:dit|dat|uw|je) [^.!?]*weigeren)",
    # Polish
    r"(?:nie (?:mogę|możemy|będę mógł|będę mogła|"
    r"jestem w stanie)(?: [^ ,.!?]+){0,2}? ?[a-ząćęłńóśźż]+[ćc](?:[ ,.!?;]|$)|"
    r"nie mam (?:dostępu|możliwości|uprawnień)|nie wolno mi|muszę odmówić|odmawiam|wolę nie |mogę (?:tylko|"
    r"jedynie) (?:odpowiadać|pomagać))",
    # Russian
    r"(?:(?:я |мы )?(?:, к сожалению, |к сожалению, )?не (?:могу|можем|буду|смогу|сможем|вправе|имею права)"
    r"(?: [а-яё]+){0,2}? ?[а-яё]+(?:ть|чь|ться)(?:[ ,.!?;]|$)|(?:у меня |у нас )нет (?:доступа|возможности)|"
    r"(?:я )?не имею (?:доступа|возможности)|вынужден[аы]? отказать|(?:я )?отказываюсь|(?:я )?могу (?:только|"
    r"лишь) (?:отвечать|помогать))",
    # Turkish
    r"(?:(?:[^ .!?]+ ){0,8}(?:yardımcı olamam|yardım edemem|yardımcı olamıyorum|olamayacağım|edemeyeceğim|"
    r"paylaşamam|veremem|sağlayamam|yapamam|yazamam|oluşturamam|yanıtlayamam|sunamam|açıklayamam|erişemem|"
    r"paylaşamıyorum|veremiyorum|sağlayamıyorum|yapamıyorum|erişemiyorum|erişimim yok|iznim yok))",
)
_OTHER_LEAD = (
    r"(?:(?:es tut mir (?:sehr |wirklich )?leid|tut mir leid|entschuldigung|leider|verzeihung|bedaure|"
    r"(?:je suis )?(?:vraiment |sincèrement )?désolée?|malheureusement|je regrette|navrée?|"
    r"lo siento(?: mucho)?|lo lamento|lamentablemente|desafortunadamente|perdón|disculpa|disculpe|por desgracia|"
    r"mi dispiace|purtroppo|scusa|spiacente|sono spiacente|"
    r"desculpe|desculpa|sinto muito|lamento|infelizmente|peço desculpas?|het spijt me|helaas|sorry|przykro mi|niestety|"
    r"przepraszam|извините|простите|к сожалению|мне (?:очень )?жаль|сожалею|üzgünüm|maalesef|ne yazık ki)[,;:.! ]+)*"
    r"(?:[^.!?\"“”«»]{0,80}, )?(?:(?:aber|mais|pero|ma|mas|maar|ale|но|ancak|fakat|ama)[, ]+)?"
)
# Scripts without spaces, and Korean and Arabic, whose refusal ends the sentence.
_EASTERN = (
    r"(?:(?:很|非常|真的|十分)?(?:抱歉|对不起|對不起|不好意思|遗憾)[，,。! ]*)?(?:但|不过|"
    r"但是)?(?:作为[^，,。]{0,20}[，,])?"
    r"(?:[^，,。“”\"]{0,12}[，,])?我(?:们|們)?(?:暂时|目前|恐怕|实在)?(?:无法|無法|不能|不可以|没法|沒辦法|"
    r"没有办法|不会|不便)"
    r"(?:为您|为你|向您|向你|帮您|帮你|直接|對|对|就)?[^，,。]{0,12}?"
    r"(?:提供|帮|幫|协助|協助|回答|满足|滿足|完成|这样做|支持|生成|撰写|写|寫|访问|訪問|打开|透露|分享|给出|"
    r"執行|执行|讨论|"
    r"评论|查看|推荐|处理|翻译|编写)",
    r"(?:申し訳|すみません|恐れ入ります|残念|その|この|それ|お応え|私は|ごめんなさい|恐縮|ご)[^。!?]{0,60}"
    r"(?:できません|できかねます|致しかねます|いたしかねます|お断り|しかねます|控えさせて|差し控え|わかりかねます)",
    r"[^。!?「」]{0,40}(?:お手伝い|お答え|ご提供|お教え|アクセス|ご案内)(?:は|する?ことは|が)?(?:できません|"
    r"できかねます|いたしかねます)",
    r"(?:죄송|미안|유감|안타깝)[^.!?]{0,60}(?:수 없|수는 없|수가 없|어렵습니다|드릴 수가 없|못합니다)",
    r"[^.!?]{0,60}(?:설명해|알려|도와|제공해|작성해|답변해) ?드리(?:기(?:는)? 어렵|지 못)",
    r"(?:[^ .!?]+ ){0,6}(?:도와|도움을|제공해|제공할|답변|알려|작성해|공유할|열어|접근할)[^.!?]{0,12}(?:수(?:가|"
    r"는)? 없|어렵습니다)",
    r"(?:عذرا|عذرًا|عذراً|آسف|أعتذر|للأسف|المعذرة)?[،,. ]*(?:ولكن|لكن|لكنني)? ?(?:أنا )?(?:لا أستطيع|لا يمكنني|"
    r"لن أتمكن|"
    r"ليس لدي (?:القدرة|إمكانية|صلاحية)|لست قادرا|ليس بإمكاني|لا يسعني|غير قادر)(?: من| على)? ?(?:مساعد|تقديم|"
    r"الإجابة|المساعد|مشارك|كتابة|الوصول|"
    r"إعطا|إنشاء|"
    r"توفير|تصفح|معرفة|فتح|الكشف|التعليق|أن)",
)

NO_REFUSAL = (
    r"(?:can't|cannot|can not|couldn't|could not|unable to|not able to|won't|will not)"
    r" (?:actually |really |quite |even |be able to |just )?"
    r"(?:help but|help (?:smiling|laughing|noticing|feeling)|(?:give|offer|share|write|say) enough|"
    r"(?:give|share) up|make (?:it\b|everyone)|wait|believe|imagine|think of|find|hear|remember|recall|attend|"
    r"come|join|"
    r"be there|stress|overstate|emphasi|thank|be (?:sure|certain|more)|say (?:for|with|which|whether|how|exactly)|"
    r"tell (?:from|whether|if|apart|exactly)|know|see|argue|agree|complain|deny|fault|blame|pretend that|lie\b|bore|"
    r"keep|take (?:the call|your call)|"
    r"reproduce (?:the|this|your) (?:bug|error|issue|problem)|guarantee|promise)"
    r"|(?:ne|n') ?(?:peux|pouvons|puis|saurais) pas (?:m'empêcher|attendre|croire|imaginer|nier|dire que|manquer|être)"
    r"|no (?:puedo|podemos) (?:estar más|dejar|esperar|creer|evitar|negar|imaginar|asistir a|quejar|ser |parar)"
    r"|non (?:posso|possiamo) (?:non|che|fare a meno|credere|aspettare|negare|lamentar|immaginare|essere)"
    r"|não (?:posso|consigo|podemos) (?:deixar|esperar|acreditar|evitar|negar|imaginar|reclamar|ser )"
    r"|nie mogę (?:się|uwierzyć|przestać|narzekać)|не (?:могу|можем) (?:не |дождаться|поверить|представить|"
    r"нарадоваться)"
    r"|(?:kann|könnte) ich(?: \S+){0,3} nicht (?:genug|oft genug|glauben)|nicht (?:genug|oft genug|"
    r"warm genug) empfehlen"
    r"|ich kann(?: \S+){0,3} nicht (?:genug|glauben|erwarten|klagen)"
    r"|kan (?:ik )?niet (?:wachten|geloven)|我(?:不能|无法)(?:不|相信|忘记)"
)

# The first words of an answer that does what was asked, or of a letter that it drafts: what follows is not about the
# answer itself.
ANSWER_OPENING = (
    r"^[ >#]*(?:sure\b|certainly\b|of course\b|absolutely\b|here(?:'s| is| are)\b|below (?:is|are)\b|subject:|dear |"
    r"translation:|hier (?:ist|sind|kommt|ein)\b|natürlich\b|gerne?\b|klar\b|betreff:|sehr geehrte|"
    r"voici\b|bien sûr|objet ?:|ch(?:er|ère)s? |aquí (?:está|tiene|tienes|va|te dejo)|claro\b|por supuesto|"
    r"asunto:|estimad|"
    r"ecco\b|certo\b|certamente|oggetto:|gentile |aqui está|assunto:|prezad|hier is\b|natuurlijk|onderwerp:|beste |"
    r"oto\b|oczywiście|temat:|szanown|вот |конечно|тема:|уважаем|işte\b|elbette|tabii|konu:|sayın |"
    r"当然|好的|以下|主题|件名|もちろん|承知|물론|다음은|제목|بالطبع|إليك|الموضوع|بالتأكيد)"
)


def refusal_patterns() -> tuple[str, ...]:
    """Patterns of a sentence that refuses: English ones, English ones after words of regret, and other languages.

    One for all would need a multiple of their memory: an automaton has states for all that may still come.
    """
    others = "|".join((*(_OTHER_LEAD + clause for clause in _OTHERS), *_EASTERN))
    return tuple(rf"(?m)^[ >#]*(?:{pattern})" for pattern in (f"{_LEAD}{_ENGLISH}", _REGRET, others))
